//! `tuyen org`: how the root rearranges the tree, and what the tree is. Not here: what an order means to nodes; see
//! `sync_core::scope`.

use std::{collections::BTreeMap, fmt::Write as _};

use clap::{Args, Subcommand};
use node::{
    admin::{
        Amount, Arrange, Arranged, ForgottenLine, NodeChange, OrderLine, OrgLine, Plan, Purged,
        Rearrangement, Receipt, Request, StepLine, Tree,
    },
    fhir::organization,
};
use serde::Serialize;
use sync_core::id::{NodeId, OrgId, OrgPath};

use super::Context;
use crate::{
    date,
    output::{Exit, Outcome},
    render::{self, many},
};

/// What to do with the tree.
#[derive(Subcommand)]
pub enum Command {
    /// Show the tree, what was ordered and what is planned
    #[command(before_help = "Example:\n  tuyen --dir root org list")]
    List {
        /// As FHIR Organizations, one a line
        #[arg(long)]
        fhir: bool,
    },
    /// Show what nodes have forgotten because an order put it elsewhere
    ///
    /// A hub forgets the records of those that have left it as soon as the centre has them. It writes a receipt, an AuditEvent,
    /// which goes up: at a node its own are shown and those of the nodes below it.
    #[command(before_help = "Example:\n  tuyen --dir root org purged")]
    Purged,
    Move(Move),
    Split(Split),
    Merge(Merge),
    Close(Close),
    /// Take a plan back that still waits for its day
    #[command(before_help = "Example:\n  tuyen --dir root org cancel 2")]
    Cancel {
        /// Its number, as `tuyen org list` shows it
        plan: u64,
    },
}

/// Give an organization, with all below it, another parent
///
/// Only at the root. Its nodes follow the order as they hear of it, keep their data, and are given new certificates by the new
/// parent. What the new parent is to hold comes to it from above.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir root org move dong-van --to tuyen-quang --address 10.2.0.1:7401 \\\n    \
                   --effective 2027-01-01 --dry-run"
)]
pub struct Move {
    /// The organization
    org: OrgId,
    /// Its new parent
    #[arg(long, value_name = "ORG")]
    to: OrgId,
    #[command(flatten)]
    when: When,
}

/// Give some of an organization's children another parent
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir root org split ha-giang dong-van meo-vac --to cao-nguyen \\\n    \
                   --address 10.3.0.1:7401 --effective 2027-01-01"
)]
pub struct Split {
    /// Their parent so far
    org: OrgId,
    /// The children that go
    #[arg(required = true, value_name = "CHILD")]
    children: Vec<OrgId>,
    /// Their new parent, which has to be enrolled before
    #[arg(long, value_name = "ORG")]
    to: OrgId,
    #[command(flatten)]
    when: When,
}

/// Close organizations and hand their children and their records on to one of their kind
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir root org merge ha-giang --into tuyen-quang --address 10.2.0.1:7401 \\\n    \
                   --effective 2027-01-01 --dry-run"
)]
pub struct Merge {
    /// Those that are closed
    #[arg(required = true, value_name = "ORG")]
    orgs: Vec<OrgId>,
    /// The one that goes on
    #[arg(long, value_name = "ORG")]
    into: OrgId,
    #[command(flatten)]
    when: When,
}

/// Close organizations and hand their children and their records on to their parents
///
/// So a tier disappears.
#[derive(Args)]
#[command(
    before_help = "Example:\n  tuyen --dir root org close huyen-a huyen-b --address 10.2.0.1:7401 --effective now"
)]
pub struct Close {
    /// Those that are closed
    #[arg(required = true, value_name = "ORG")]
    orgs: Vec<OrgId>,
    #[command(flatten)]
    when: When,
}

/// From when on, and where to go.
#[derive(Args)]
pub struct When {
    /// Where the new parent listens: what the nodes that get it are to dial
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// From when on: 2027-01-01, '2027-01-01 06:00' (Vietnam's time) or now. Until then it can be cancelled
    #[arg(long, value_name = "DATE", value_parser = date::parse)]
    effective: i64,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct ArrangedBody<'a> {
    dry_run: bool,
    effective: String,
    order: Option<u64>,
    plan: Option<u64>,
    steps: &'a [StepLine],
    nodes: &'a [NodeChange],
}

#[derive(Serialize)]
struct OrderBody<'a> {
    number: u64,
    at: String,
    steps: &'a [StepLine],
}

#[derive(Serialize)]
struct PlanBody<'a> {
    plan: u64,
    effective: String,
    address: Option<&'a str>,
    change: &'a Rearrangement,
    problem: Option<&'a str>,
}

#[derive(Serialize)]
struct TreeBody<'a> {
    orgs: &'a [OrgLine],
    orders: Vec<OrderBody<'a>>,
    plans: Vec<PlanBody<'a>>,
}

#[derive(Serialize)]
struct PurgedBody<'a> {
    receipts: Vec<ReceiptBody<'a>>,
}

#[derive(Serialize)]
struct ReceiptBody<'a> {
    at: String,
    place: &'a OrgPath,
    node: NodeId,
    order: u64,
    forgotten: &'a [ForgottenLine],
}

impl<'a> ReceiptBody<'a> {
    fn new(receipt: &'a Receipt) -> Self {
        let Receipt { at, place, node, order, forgotten } = receipt;
        Self { at: render::rfc3339(*at), place, node: *node, order: *order, forgotten }
    }
}

impl Command {
    /// Does it.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Command::List { fhir: false } => show(context, &context.call(&Request::Tree)?),
            Command::List { fhir: true } => {
                let tree: Tree = context.call(&Request::Tree)?;
                organization::resources(&tree)
                    .try_for_each(|one| context.output.verbatim(format_args!("{one}\n")))?;
                Ok(Exit::Ok)
            }
            Command::Purged => {
                let purged: Purged = context.call(&Request::Purged)?;
                let receipts: Vec<_> = purged.receipts.iter().map(ReceiptBody::new).collect();
                context.output.result(receipts_in_words(&purged.receipts), &PurgedBody { receipts })?;
                Ok(Exit::Ok)
            }
            Command::Cancel { plan } => {
                let tree = context.call(&Request::CancelPlan { plan })?;
                show(context, &tree)
            }
            Command::Move(Move { org, to, when }) => when.arrange(context, Rearrangement::Move { org, to }),
            Command::Split(Split { org, children, to, when }) => {
                when.arrange(context, Rearrangement::Split { org, to, children })
            }
            Command::Merge(Merge { orgs, into, when }) => {
                when.arrange(context, Rearrangement::Close { orgs, into: Some(into) })
            }
            Command::Close(Close { orgs, when }) => {
                when.arrange(context, Rearrangement::Close { orgs, into: None })
            }
        }
    }
}

impl When {
    fn arrange(self, context: &Context, change: Rearrangement) -> Outcome {
        let Self { address, effective, dry_run } = self;
        let arranged: Arranged =
            context.call(&Request::Arrange(Arrange { change, address, effective, dry_run }))?;
        let body = ArrangedBody {
            dry_run,
            effective: render::rfc3339(arranged.effective),
            order: arranged.order,
            plan: arranged.plan,
            steps: &arranged.steps,
            nodes: &arranged.nodes,
        };
        context.output.result(text(&arranged), &body)?;
        Ok(Exit::Ok)
    }
}

fn step(step: &StepLine) -> String {
    match step {
        StepLine::Move { from, to, address } if from == to => {
            format!("{} stays at {to}, and dials {address}", to.org())
        }
        StepLine::Move { from, to, address } => {
            format!("{} moves from {from} to {to}, and dials {address}", to.org())
        }
        StepLine::Close { org, successor } => format!("{org} is closed; what was its own is {successor}'s"),
    }
}

fn amount(amount: Amount) -> String {
    match amount.homes {
        0 => "-".to_owned(),
        homes => format!(
            "{} of {}",
            many(amount.entries, "entry", "entries"),
            many(homes, "organization", "organizations")
        ),
    }
}

fn receipts_in_words(receipts: &[Receipt]) -> String {
    if receipts.is_empty() {
        return "Nobody here or below has forgotten anything because of an order, or of a grant that has ended.\n".to_owned();
    }
    let head = ["WHEN", "WHERE", "WHY", "WHOSE", "RECORDS", "ENTRIES"].map(str::to_owned).to_vec();
    let rows = receipts.iter().flat_map(|receipt| {
        receipt.forgotten.iter().map(|part| {
            vec![
                render::local(receipt.at),
                receipt.place.to_string(),
                if receipt.order == 0 {
                    "grant ended".to_owned()
                } else {
                    format!("order {}", receipt.order)
                },
                part.org.to_string(),
                render::count(part.records),
                render::count(part.entries),
            ]
        })
    });
    render::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn text(arranged: &Arranged) -> String {
    let mut text = format!("From {} on:\n", render::local(arranged.effective));
    for line in &arranged.steps {
        let _ = writeln!(text, "  {}", step(line));
    }
    let head = [
        "NODE",
        "STANDS AT",
        "IS SENT IN ADDITION",
        "IS SENT NO MORE",
        "OF ITS OWN THE CENTRE HAS",
        "STILL TO SEND",
    ];
    let row = |node: &NodeChange| {
        let stands = if node.closed { format!("{}, closed", node.after) } else { node.after.to_string() };
        let own = many(node.at_root, "entry", "entries");
        let to_send = match node.still_to_send {
            Some(entries) => render::count(entries),
            None => "not heard".to_owned(),
        };
        vec![node.before.org().to_string(), stands, amount(node.gains), amount(node.loses), own, to_send]
    };
    let head = head.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(arranged.nodes.iter().map(row)).collect();
    let _ = write!(
        text,
        "\n{}\nStill to send is what a node has said last, to the centre or to the hub above it; who is away or paused may have \
         more. Each sends it to the parent that it has then, and nothing is lost. What a hub is sent no more it forgets when the \
         centre has it: `tuyen org purged`.\n",
        render::table(&rows)
    );
    if arranged.nodes.iter().any(|node| node.closed) {
        text += "Secret records stay on the machine where they are, or go as far as profiles allow: make a backup of a machine that is closed \
                 before it is revoked or wiped (its `tuyen status` counts them).\n";
    }
    let _ = match (arranged.order, arranged.plan) {
        (Some(order), _) => {
            writeln!(text, "Order {order} is given. Nodes follow it as soon as they hear of it.")
        }
        (None, Some(plan)) => writeln!(
            text,
            "Plan {plan}: it is ordered on {}, for the tree as it is then. Until then `tuyen org cancel {plan}` takes it back.",
            render::local(arranged.effective)
        ),
        (None, None) => writeln!(text, "Nothing is ordered: this was a dry run."),
    };
    text
}

fn show(context: &Context, tree: &Tree) -> Outcome {
    let order = |order: &'_ OrderLine| (order.number, render::rfc3339(order.at));
    let orders = tree.orders.iter().map(|one| {
        let (number, at) = order(one);
        OrderBody { number, at, steps: &one.steps }
    });
    let plans = tree.plans.iter().map(|plan| PlanBody {
        plan: plan.plan,
        effective: render::rfc3339(plan.effective),
        address: plan.address.as_deref(),
        change: &plan.change,
        problem: plan.problem.as_deref(),
    });
    let body = TreeBody { orgs: &tree.orgs, orders: orders.collect(), plans: plans.collect() };
    context.output.result(in_words(tree), &body)?;
    Ok(if tree.plans.iter().any(|plan| plan.problem.is_some()) { Exit::Attention } else { Exit::Ok })
}

fn in_words(tree: &Tree) -> String {
    // Below the root not all are known: whose parent is not in the list stands there with its whole place.
    let mut levels: BTreeMap<&OrgPath, usize> = BTreeMap::new();
    let mut rows = Vec::new();
    for line in &tree.orgs {
        let above = line.place.parent().and_then(|parent| levels.get(&parent).copied());
        let (level, name) = match above {
            Some(level) => (level + 1, line.org.to_string()),
            None => (0, line.place.to_string()),
        };
        levels.insert(&line.place, level);
        let closed = line.successor.as_ref().map(|heir| format!(" (closed, its own is {heir}'s)"));
        rows.push(vec![
            format!("{}{name}{}", "  ".repeat(level), closed.unwrap_or_default()),
            many(line.entries, "entry", "entries"),
        ]);
    }
    let mut text = render::table(&rows);
    for order in &tree.orders {
        let _ = writeln!(text, "\nOrder {}, given on {}:", order.number, render::local(order.at));
        for line in &order.steps {
            let _ = writeln!(text, "  {}", step(line));
        }
    }
    for plan in &tree.plans {
        let dial = plan.address.as_ref().map(|it| format!("; those that get another parent dial {it}"));
        let _ = writeln!(
            text,
            "\nPlan {}, for {}: {}{}",
            plan.plan,
            render::local(plan.effective),
            planned(plan),
            dial.unwrap_or_default()
        );
        if let Some(problem) = &plan.problem {
            let _ = writeln!(
                text,
                "  It was due and could not be ordered: {problem}. Cancel it, and order what is right."
            );
        }
    }
    text
}

fn planned(plan: &Plan) -> String {
    let list = |orgs: &[OrgId]| orgs.iter().map(OrgId::to_string).collect::<Vec<_>>().join(", ");
    match &plan.change {
        Rearrangement::Move { org, to } => format!("{org} goes to {to}"),
        Rearrangement::Split { org, to, children } => format!("{} go from {org} to {to}", list(children)),
        Rearrangement::Close { orgs, into: Some(into) } => format!("{} merges into {into}", list(orgs)),
        Rearrangement::Close { orgs, into: None } => format!("{} closes into its parent", list(orgs)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(name: &str) -> OrgId {
        OrgId::new(name).unwrap()
    }

    #[test]
    fn whose_parent_is_not_known_stands_in_the_list_with_its_place() {
        let line = |place: &str| {
            let place: OrgPath = place.parse().unwrap();
            OrgLine { org: place.org().clone(), place, successor: None, entries: 1 }
        };
        let orgs = ["tw", "tw/hg", "tw/hg/dv", "tw/tq/qb"].map(line).to_vec();
        let text = in_words(&Tree { orgs, orders: Vec::new(), plans: Vec::new() });
        let names: Vec<_> = text.lines().map(|line| line.trim_end_matches("1 entry").trim_end()).collect();
        assert_eq!(names, ["tw", "  hg", "    dv", "tw/tq/qb"]);
    }

    #[test]
    fn receipts_say_where_and_whose() {
        let part = |name: &str, records| ForgottenLine { org: org(name), records, entries: 2 * records };
        let receipt = Receipt {
            at: 1_798_736_400_000,
            place: "tw/hg".parse().unwrap(),
            node: NodeId([7; 16]),
            order: 3,
            forgotten: vec![part("dv", 602), part("mv", 1)],
        };
        let ended = Receipt { order: 0, forgotten: vec![part("bm", 2)], ..receipt.clone() };
        assert_eq!(
            receipts_in_words(&[receipt, ended]),
            "\
WHEN              WHERE  WHY          WHOSE  RECORDS  ENTRIES
2027-01-01 00:00  tw/hg  order 3      dv     602      1,204
2027-01-01 00:00  tw/hg  order 3      mv     1        2
2027-01-01 00:00  tw/hg  grant ended  bm     2        4
"
        );
        assert!(receipts_in_words(&[]).contains("Nobody here or below"));
    }

    fn arranged() -> Arranged {
        let change = |before: &str, after: &str, closed, gains, loses| NodeChange {
            before: before.parse().unwrap(),
            after: after.parse().unwrap(),
            closed,
            gains: Amount { homes: u64::from(gains > 0), entries: gains },
            loses: Amount { homes: u64::from(loses > 0), entries: loses },
            at_root: 1_204,
            still_to_send: (!before.ends_with("tq")).then_some(36),
        };
        Arranged {
            steps: vec![
                StepLine::Move {
                    from: "tw/hg/dv".parse().unwrap(),
                    to: "tw/tq/dv".parse().unwrap(),
                    address: "10.2.0.1:7401".to_owned(),
                },
                StepLine::Close { org: org("hg"), successor: org("tq") },
            ],
            nodes: vec![
                change("tw/hg", "tw/hg", true, 0, 1_204),
                change("tw/hg/dv", "tw/tq/dv", false, 0, 0),
                change("tw/tq", "tw/tq", false, 1_204, 0),
            ],
            effective: 1_798_736_400_000,
            order: None,
            plan: None,
        }
    }

    #[test]
    fn a_dry_run_says_what_each_node_gains_and_loses() {
        let expected = "\
From 2027-01-01 00:00 on:
  dv moves from tw/hg/dv to tw/tq/dv, and dials 10.2.0.1:7401
  hg is closed; what was its own is tq's

NODE  STANDS AT      IS SENT IN ADDITION              IS SENT NO MORE                  OF ITS OWN THE CENTRE HAS  STILL TO SEND
hg    tw/hg, closed  -                                1,204 entries of 1 organization  1,204 entries              36
dv    tw/tq/dv       -                                -                                1,204 entries              36
tq    tw/tq          1,204 entries of 1 organization  -                                1,204 entries              not heard

Still to send is what a node has said last, to the centre or to the hub above it; who is away or paused may have more. Each sends it to the parent that it has then, and nothing is lost. What a hub is sent no more it forgets when the centre has it: `tuyen org purged`.
Secret records stay on the machine where they are, or go as far as profiles allow: make a backup of a machine that is closed before it is revoked or wiped (its `tuyen status` counts them).
Nothing is ordered: this was a dry run.
";
        assert_eq!(text(&arranged()), expected);
        let ordered = text(&Arranged { order: Some(3), ..arranged() });
        assert!(
            ordered.ends_with("Order 3 is given. Nodes follow it as soon as they hear of it.\n"),
            "{ordered}"
        );
        let planned = text(&Arranged { plan: Some(2), ..arranged() });
        assert!(
            planned.contains("Plan 2: it is ordered on 2027-01-01 00:00") && planned.contains("org cancel 2")
        );
    }

    #[test]
    fn the_tree_is_shown_with_what_was_ordered_and_what_waits() {
        let line = |place: &str, successor: Option<&str>| OrgLine {
            org: place.parse::<sync_core::id::OrgPath>().unwrap().org().clone(),
            place: place.parse().unwrap(),
            successor: successor.map(org),
            entries: 1,
        };
        let plan = Plan {
            plan: 2,
            change: Rearrangement::Close { orgs: vec![org("dd")], into: None },
            address: Some("10.2.0.1:7401".to_owned()),
            effective: 1_798_736_400_000,
            order: None,
            problem: None,
        };
        let problem = Some("dd is closed".to_owned());
        let tree = Tree {
            orgs: vec![
                line("tw", None),
                line("tw/hg", Some("tq")),
                line("tw/tq", None),
                line("tw/tq/dv", None),
            ],
            orders: vec![OrderLine { number: 1, at: 1_798_736_400_000, steps: arranged().steps }],
            plans: vec![plan.clone(), Plan { plan: 3, problem, ..plan }],
        };
        let expected = "\
tw                              1 entry
  hg (closed, its own is tq's)  1 entry
  tq                            1 entry
    dv                          1 entry

Order 1, given on 2027-01-01 00:00:
  dv moves from tw/hg/dv to tw/tq/dv, and dials 10.2.0.1:7401
  hg is closed; what was its own is tq's

Plan 2, for 2027-01-01 00:00: dd closes into its parent; those that get another parent dial 10.2.0.1:7401

Plan 3, for 2027-01-01 00:00: dd closes into its parent; those that get another parent dial 10.2.0.1:7401
  It was due and could not be ordered: dd is closed. Cancel it, and order what is right.
";
        assert_eq!(in_words(&tree), expected);
    }
}
