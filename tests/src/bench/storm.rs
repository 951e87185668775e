//! A storm: after an outage every leaf of a hub dials at once, each with a few new records.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use node::{fhir::population::Population, keys::IdentityFolder};
use sync_core::{id::OrgId, identity::Role};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    Bench,
    bare::{self, Process},
    crowd::Leaf,
    memory,
    report::{Figure, median},
    scenarios::Outcome,
    world::SEED,
};
use crate::cluster::Node;

/// Records that each leaf brings.
const RECORDS_EACH: usize = 20;
/// Pairs.
const TURNS: usize = 3;
/// Leaves that meet their hub for the first time together: nothing is measured then.
const FIRST_TOGETHER: usize = 50;
/// However bad it is, a storm is over by then.
const OVER: Duration = Duration::from_secs(300);
const MIB: f64 = 1024.0;

/// One storm, the product's and the bare loop's.
struct Turn {
    seconds: f64,
    middle: f64,
    again: u32,
    hub_cpu: f64,
    bare_seconds: f64,
    bare_cpu: f64,
}

/// So many leaves at once.
pub fn storm(_: &mut Bench, leaves: usize) -> Outcome {
    let dir = tempfile::Builder::new().prefix("tuyen-bench-storm-").tempdir()?;
    let mut root = Node::root(&dir.path().join("root"), "trung-uong");
    let mut hub = root.child(&dir.path().join("hub"), Role::Hub, "ha-giang");
    root.stop();
    let identity = IdentityFolder::of_node(&hub.dir).load()?;
    let org = |number: usize| OrgId::new(&format!("tram-{number}"));
    let crowd = (0..leaves).map(|number| Leaf::below(&identity, org(number)?, SEED));
    let mut crowd: Vec<Leaf> = crowd.collect::<anyhow::Result<_>>()?;
    let address = hub.config().listen.context("a hub listens")?;
    let runtime = Runtime::new()?;
    for leaf in &mut crowd {
        leaf.write(texts(leaf, 0, 1))?;
    }
    let mut known = Vec::new();
    while !crowd.is_empty() {
        let some = crowd.split_off(crowd.len().saturating_sub(FIRST_TOGETHER));
        known.extend(runtime.block_on(all_live(some, address, || Ok(())))?.0);
    }
    crowd = known;
    let before = memory::peak_kib(hub.pid());
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        hub.wait("apart, and folded", |s| {
            s.unfolded == 0 && s.down.iter().all(|link| link.state != "connected")
        });
        let tips = crowd.iter().map(Leaf::tip).collect::<anyhow::Result<Vec<_>>>()?;
        for leaf in &mut crowd {
            leaf.write(texts(leaf, 1 + turn * RECORDS_EACH, RECORDS_EACH))?;
        }
        let (came, measured) = product(&runtime, crowd, &hub, address)?;
        crowd = came;
        turns.push(bare_storm(&runtime, &crowd, &tips, &hub, measured)?);
    }
    let peak = memory::peak_kib(hub.pid());
    let alerts = hub.status().alerts.len();
    hub.stop();
    figures(leaves, &turns, (before, peak), alerts)
}

fn figures(leaves: usize, turns: &[Turn], (before, peak): (u64, u64), alerts: usize) -> Outcome {
    let middle = |of: fn(&Turn) -> f64| median(turns.iter().map(of));
    let figure = |what, unit, value| Figure::new("storm", leaves, what, unit, value);
    let mut time = figure("20 of each leaf, until all are durable", "s", middle(|t| t.seconds))
        .beside(middle(|t| t.bare_seconds));
    time.ratio = Some(middle(|t| t.seconds / t.bare_seconds));
    let again = turns.iter().map(|turn| turn.again).max().unwrap_or(0);
    Ok(vec![
        time.within(3.0),
        figure("the leaf in the middle", "s", middle(|t| t.middle)),
        figure("the hub's processor time", "s", middle(|t| t.hub_cpu)).beside(middle(|t| t.bare_cpu)),
        figure("the hub's peak before", "MiB", before as f64 / MIB),
        figure("the hub's peak", "MiB", peak as f64 / MIB).at_most(200.0),
        figure("dials beyond the first, of all leaves", "", f64::from(again)),
        figure("alerts at the hub", "", alerts as f64).at_most(0.0),
    ])
}

/// New resources of the leaf's own, behind those that it has.
fn texts(leaf: &Leaf, after: usize, count: usize) -> Vec<String> {
    let all = Population::new(SEED, leaf.org());
    all.skip(after).take(count).map(|resource| resource.to_string()).collect()
}

fn product(
    runtime: &Runtime,
    crowd: Vec<Leaf>,
    hub: &Node,
    address: SocketAddr,
) -> anyhow::Result<(Vec<Leaf>, Turn)> {
    let (entries, cpu, leaves) = (hub.status().entries, memory::cpu_seconds(hub.pid()), crowd.len());
    let mut hub_cpu = 0.0;
    let at_the_end = || {
        hub_cpu = memory::cpu_seconds(hub.pid()) - cpu;
        let brought = hub.status().entries - entries;
        anyhow::ensure!(brought as usize == leaves * RECORDS_EACH, "{brought} entries were brought");
        Ok(())
    };
    let (crowd, served) = runtime.block_on(all_live(crowd, address, at_the_end))?;
    let seconds = served.iter().map(|(_, seconds)| *seconds);
    let turn = Turn {
        seconds: seconds.clone().fold(0.0, f64::max),
        middle: median(seconds),
        again: served.iter().map(|(dials, _)| dials - 1).sum(),
        hub_cpu,
        bare_seconds: 0.0,
        bare_cpu: 0.0,
    };
    Ok((crowd, turn))
}

/// Every leaf dials now, and lives until the last one is served and what is to be done then is done. Gives for each
/// the number of its dials, and the time until it was served.
async fn all_live(
    crowd: Vec<Leaf>,
    hub: SocketAddr,
    at_the_end: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(Vec<Leaf>, Vec<(u32, f64)>)> {
    let (mut tasks, began) = (JoinSet::new(), Instant::now());
    let (says, mut served) = mpsc::unbounded_channel();
    let stop = watch::Sender::new(false);
    for mut leaf in crowd {
        let (says, stop) = (says.clone(), stop.subscribe());
        tasks.spawn(async move { leaf.live(hub, says, stop).await.map(|()| leaf) });
    }
    let mut all = Vec::new();
    while all.len() < tasks.len() {
        let dials = tokio::time::timeout(OVER, served.recv()).await.context("a leaf was never served")?;
        all.push((dials.context("a leaf lives until it is stopped")?, began.elapsed().as_secs_f64()));
    }
    at_the_end()?;
    stop.send_replace(true);
    let crowd = tasks.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
    Ok((crowd, all))
}

/// The same rows with a handshake each, in one stream each, and one insert for all.
fn bare_storm(
    runtime: &Runtime,
    crowd: &[Leaf],
    tips: &[u64],
    hub: &Node,
    turn: Turn,
) -> anyhow::Result<Turn> {
    let frames = crowd.iter().zip(tips).map(|(leaf, tip)| bare::packed(&leaf.bodies(*tip)?));
    let frames = frames.collect::<anyhow::Result<Vec<_>>>()?;
    let (server, address) = Process::crowd_hub(&hub.dir, crowd.len())?;
    let (began, cpu) = (Instant::now(), server.cpu_seconds());
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (leaf, frame) in crowd.iter().zip(frames) {
            let dialler = leaf.dialler();
            tasks.spawn(async move {
                let met = dialler.dial(address).await?;
                bare::hand_in(&met.1, &frame).await?;
                anyhow::Ok(met)
            });
        }
        tasks.join_all().await.into_iter().try_for_each(|done| done.map(drop))
    })?;
    let bare_seconds = began.elapsed().as_secs_f64();
    Ok(Turn { bare_seconds, bare_cpu: server.cpu_seconds() - cpu, ..turn })
}
