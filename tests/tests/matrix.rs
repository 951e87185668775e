//! The table of `docs/TESTING.md` that says what each restore comes to is what the worlds come to.

use std::{fmt::Write as _, path::Path};

use tuyen_tests::sim::{
    Trace,
    matrix::{BY, By, COPIES, Cell, NODES},
};

const BEGIN: &str = "<!-- restore matrix -->\n";
const END: &str = "<!-- end -->\n";

fn table() -> String {
    let mut table = String::from(
        "| put back | written since by | and synced upwards | a copy of some seconds | of a day | from before a child was \
         enrolled | of a day, and both run |\n|---|---|---|---|---|---|---|\n",
    );
    for nodes in NODES {
        for by in BY {
            for synced in [true, false] {
                if !(Cell { nodes, copy: COPIES[0], by, synced }).exists() {
                    continue;
                }
                let who = match by {
                    By::Themselves => "itself",
                    By::Below => "leaves below",
                    By::Above => "those above",
                };
                write!(table, "| {nodes} | {who} | {}", if synced { "yes" } else { "no" }).unwrap();
                for copy in COPIES {
                    let cell = Cell { nodes, copy, by, synced };
                    let outcome =
                        cell.work_out(&mut Trace::off()).unwrap_or_else(|e| panic!("{cell:?}: {e}"));
                    assert!(outcome.since > 0, "{cell:?}");
                    let told = if outcome.told { "" } else { "; nobody is told" };
                    match outcome.lost {
                        0 => write!(table, " | no loss{told}").unwrap(),
                        lost => write!(table, " | **lost: {lost} of {}**{told}", outcome.since).unwrap(),
                    }
                }
                table.push_str(" |\n");
            }
        }
    }
    table
}

#[test]
fn the_matrix_says_what_comes_of_every_restore() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/TESTING.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (shown, after) = rest.split_once(END).expect("the table has an end");
    let table = table();
    if std::env::var_os("TUYEN_UPDATE_MATRIX").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        shown, table,
        "write it anew with: TUYEN_UPDATE_MATRIX=1 cargo test --release -p tuyen-tests --test matrix"
    );
}
