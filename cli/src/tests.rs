//! The command line itself: its help as one text that a person reviews when it changes, and its parsing.

use clap::CommandFactory;

use super::*;

/// The help of every command, in the order of the commands.
fn help() -> String {
    fn add(command: &mut clap::Command, path: &str, out: &mut String) {
        let title = format!("## {path}");
        out.push_str(&format!("{title}\n\n{}\n\n", command.render_long_help().to_string().trim_end()));
        for child in command.get_subcommands_mut().filter(|child| !child.is_hide_set()) {
            if child.get_name() != "help" {
                let path = format!("{path} {}", child.get_name());
                add(child, &path, out);
            }
        }
    }
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut out = String::new();
    add(&mut command, "tuyen", &mut out);
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn the_help_is_the_reviewed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/help.txt");
    let now = help();
    if std::env::var_os("TUYEN_UPDATE_HELP").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let reviewed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        now == reviewed,
        "the help changed; run this test with TUYEN_UPDATE_HELP=1 and read the difference"
    );
}

#[test]
fn every_help_leads_with_an_example() {
    fn check(command: &clap::Command) {
        let before = command.get_before_help().map(ToString::to_string).unwrap_or_default();
        assert!(before.starts_with("Example"), "{}", command.get_name());
        command.get_subcommands().filter(|child| child.get_name() != "help").for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn the_transcript_of_the_manual_is_understood() {
    Cli::command().debug_assert();
    for line in [
        "tuyen --dir root init --role root --org trung-uong --listen 127.0.0.1:7401",
        "tuyen --dir root invite --role hub --org ha-giang --expires 7d",
        "tuyen --dir hg enrol TOKEN --listen 127.0.0.1:7402",
        "tuyen --dir dv enrol TOKEN --request FILE",
        "tuyen --dir hg enrol TOKEN --listen 127.0.0.1:7402 --request FILE",
        "tuyen --dir hg admit FILE --out FILE",
        "tuyen --dir dv enrol --answer FILE",
        "tuyen --dir dv renew --request FILE",
        "tuyen --dir dv renew --answer FILE --json",
        "tuyen --dir hg daemon",
        "tuyen --dir dv records import FILE DIR -",
        "tuyen --dir dv records put FILE",
        "tuyen --dir dv records get Patient/8f21 --json",
        "tuyen --dir dv records list",
        "tuyen --dir dv records export",
        "tuyen --dir dv records history Patient/8f21",
        "tuyen --dir dv records delete Patient/8f21",
        "tuyen --dir dv status --json",
        "tuyen --dir dv peers",
        "tuyen --dir hg outages --org dong-van --since 30d --json",
        "tuyen --dir dv link show --json",
        "tuyen --dir dv link set --rate none --rate RATE",
        "tuyen --dir dv link set --metered yes --bulk-window 22:00-05:00 --monthly-cap none --utc-offset -03:30",
        "tuyen --dir dv sync now --wait",
        "tuyen --dir dv sync now --wait --bulk",
        "tuyen --dir dv sync pause",
        "tuyen --dir dv sync resume",
        "tuyen --dir dv verify --json",
        "tuyen --dir dv verify --with ha-giang",
        "tuyen --dir hg conflicts list --json",
        "tuyen --dir hg conflicts show Patient/8f21",
        "tuyen --dir hg conflicts resolve Patient/8f21 birthDate --take 2 --why asked",
        "tuyen --dir hg conflicts resolve Patient/8f21 birthDate --value \"1961-02-03\" --why asked",
        "tuyen --dir hg revoke dong-van --reason lost",
        "tuyen --dir root org list --json",
        "tuyen --dir root org move dong-van --to tuyen-quang --address h:1 --effective 2027-01-01 --dry-run",
        "tuyen --dir root org split hg dv mv --to cn --address h:1 --effective now",
        "tuyen --dir root org merge hg yb --into tq --address h:1 --effective 2027-01-01T06:00",
        "tuyen --dir root org close ha hb --address h:1 --effective now",
        "tuyen --dir root org cancel 2",
        "tuyen backup keygen --out province.key",
        "tuyen --dir dv backup create --to age1... --out dv-2026-11-28.tuyen-backup",
        "tuyen --dir dv backup create --to age1... --to age1... --out FILE --json",
        "tuyen backup verify FILE --key province.key",
        "tuyen backup restore FILE --key - --dir dv2",
        "tuyen demo --json --data FILE --data DIR --keep DIR",
        "tuyen demo --seed 7 --records 100000",
    ] {
        if let Err(error) = Cli::try_parse_from(line.split(' ')) {
            panic!("{line}: {error}");
        }
    }
    for line in [
        "tuyen",
        "tuyen status extra",
        "tuyen outages --since yesterday",
        "tuyen records get patient/1",
        "tuyen enrol",
        "tuyen enrol TOKEN --answer FILE",
        "tuyen enrol --request FILE",
        "tuyen enrol TOKEN --request FILE --answer FILE",
        "tuyen admit FILE",
        "tuyen renew",
        "tuyen renew --request FILE --answer FILE",
        "tuyen invite --role root --org x",
        "tuyen invite --role hub --org Hà --expires 7d",
        "tuyen invite --role hub --org x --expires soon",
        "tuyen org move dong-van --to tuyen-quang --address h:1",
        "tuyen org move dong-van --to tuyen-quang --address h:1 --effective tomorrow",
        "tuyen org split hg --to cn --address h:1 --effective now",
        "tuyen org close --address h:1 --effective now",
        "tuyen conflicts resolve Patient/1 birthDate --why x",
        "tuyen conflicts resolve Patient/1 birthDate --take 1 --value 2 --why x",
        "tuyen conflicts resolve Patient/1 birthDate --take 1",
        "tuyen conflicts resolve Patient/1 birthDate --take 0 --why x",
        "tuyen backup create --out FILE",
        "tuyen backup create --to age1...",
        "tuyen backup verify FILE",
        "tuyen backup restore --key province.key",
        "tuyen demo --records 1000000",
        "tuyen demo --records 100 --data FILE",
    ] {
        let error = Cli::try_parse_from(line.split(' ')).err().unwrap_or_else(|| panic!("{line} is taken"));
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_wrong_command_line_is_told_in_one_line() {
    let told = |line: &str| {
        let error = Cli::try_parse_from(line.split(' ')).err().unwrap();
        one_sentence(&error.render().to_string())
    };
    let expected = "unrecognized subcommand 'statu'; a similar subcommand exists: 'status'; \
                    usage: tuyen [OPTIONS] <COMMAND>";
    assert_eq!(told("tuyen statu"), expected);
    let missing = told("tuyen conflicts resolve Patient/1 birthDate --take 1");
    assert!(missing.starts_with("the following required arguments were not provided: --why <TEXT>; usage: "));
    let name = told("tuyen records get good1");
    assert!(name.starts_with("invalid value 'good1' for '<TYPE/ID>': a record is named Type/id"), "{name}");
}
