//! Measures the product beside a bare loop.
//!
//! `cargo run --release -p tuyen-tests --bin bench -- [SCENARIO...] [--json] [--records N] [--list]`, after
//! `cargo build --release --workspace --bins`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use tuyen_tests::bench::{Bench, SCENARIOS, Scenario, bare, report};

const USAGE: &str = "bench [SCENARIO...] [--json] [--records N] [--list]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.split_first() {
        Some((first, rest)) if first == bare::ARGUMENT => bare::main(rest),
        _ => run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<String>) -> anyhow::Result<()> {
    let (mut bench, mut json, mut chosen) = (Bench::default(), false, Vec::new());
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => json = true,
            "--list" | "--help" => {
                println!("{USAGE}\n");
                SCENARIOS.iter().for_each(|scenario| println!("{:<10} {}", scenario.name, scenario.about));
                return Ok(());
            }
            "--records" => {
                let number = args.next().context("--records needs a number")?;
                bench.records = Some(number.parse().context("--records needs a number")?);
            }
            flag if flag.starts_with('-') => bail!("{flag} is not known; {USAGE}"),
            name => chosen.push(find(name)?),
        }
    }
    if chosen.is_empty() {
        chosen.extend(&SCENARIOS);
    }
    let mut figures = Vec::new();
    for scenario in chosen {
        figures.extend(bench.run(scenario)?);
    }
    if json {
        report::print_json(&figures);
    } else {
        report::print_head();
        figures.iter().for_each(report::print_line);
    }
    Ok(())
}

fn find(name: &str) -> anyhow::Result<&'static Scenario> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    found.with_context(|| {
        let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there is no scenario {name}; there are {}", names.join(", "))
    })
}
