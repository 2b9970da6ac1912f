//! Every pair of kinds: one calls the other, which is a node, by `netcheck`, from its start.
//!
//! The callers are other machines than the nodes, behind routers of their own, so that both orders of a pair are tried.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use benches::statistics::{median, wilson};
use benches::table::Table;
use serde_json::Value;

use crate::Arguments;
use crate::demands::{self, Hardship, demand};
use crate::nat_lab::{Kind, Lab, Site};
use crate::network::{Network, text};

/// Callers at work at once: most of the time they wait.
const AT_ONCE: usize = 4;

/// What one call found.
#[derive(Clone, Debug, Default)]
struct Found {
    /// `direct`, `punched`, `relayed`, or why there is nothing.
    how: String,
    first_reply_ms: Option<f64>,
    direct_after_ms: Option<f64>,
    round_trip_ms: Option<f64>,
}

/// Tries all pairs and prints the table; whether everybody was reached, and if that is asked as soon as is demanded.
pub(crate) fn run(program: &Path, kinds: &[Kind], arguments: &Arguments) -> io::Result<bool> {
    let site = |kind: &Kind| Site { hairpin: arguments.hairpin, open: arguments.open, ..Site::from(*kind) };
    let sites: Vec<Site> = kinds.iter().chain(kinds).map(site).collect();
    let mut lab = Lab::new("r", &sites);
    let _line =
        (arguments.delay > 0).then(|| lab.delay(sites.len(), Duration::from_millis(arguments.delay.into())));
    let lab = lab;
    for number in (0..sites.len()).filter(|_| arguments.loss > 0) {
        lab.lose(number, arguments.loss);
    }
    let mut network = Network::found(&lab, program, 1, true)?;
    for (at, kind) in kinds.iter().enumerate() {
        network.add_node(&format!("host{at}"), demands::name(*kind), None)?;
        network.add_writer(&host_of_caller(kinds, at), &caller(*kind), None)?;
    }
    let ids: BTreeMap<String, String> = network.ids()?.into_iter().collect();
    let all = Trial { network: &network, kinds, ids: &ids, arguments };
    let mut found: BTreeMap<(Kind, Kind), Vec<Found>> = BTreeMap::new();
    for run in 1..=arguments.runs {
        for few in (0..kinds.len()).collect::<Vec<_>>().chunks(AT_ONCE) {
            let each = thread::scope(|s| {
                let calling: Vec<_> = few.iter().map(|from| s.spawn(|| all.calls_of(*from))).collect();
                calling
                    .into_iter()
                    .map(|caller| caller.join().expect("it reports what fails"))
                    .collect::<Vec<_>>()
            });
            for (from, calls) in few.iter().zip(each) {
                eprintln!("run {run}: {} has called all", demands::name(kinds[*from]));
                for (to, call) in kinds.iter().zip(calls) {
                    found.entry((kinds[*from], *to)).or_default().push(call);
                }
            }
        }
    }
    println!("{}", table(&found, arguments));
    let is_met = |pair: &(Kind, Kind), calls: &[Found]| is_met(calls, *pair, arguments.into());
    let unmet = found.iter().filter(|(pair, calls)| !is_met(pair, calls)).count();
    println!("{} of {} pairs are as demanded", found.len() - unmet, found.len());
    Ok(found.values().flatten().all(|call| call.first_reply_ms.is_some()) && !(arguments.strict && unmet > 0))
}

/// What all calls of a run have in common.
struct Trial<'a> {
    network: &'a Network<'a>,
    kinds: &'a [Kind],
    ids: &'a BTreeMap<String, String>,
    arguments: &'a Arguments,
}

impl Trial<'_> {
    /// What one caller found of each node.
    fn calls_of(&self, from: usize) -> Vec<Found> {
        let to = |kind: &Kind| {
            self.call(from, *kind)
                .unwrap_or_else(|error| Found { how: error.to_string(), ..Found::default() })
        };
        self.kinds.iter().map(to).collect()
    }

    fn call(&self, from: usize, to: Kind) -> io::Result<Found> {
        let id = self.ids.get(demands::name(to)).ok_or_else(|| io::Error::other("it is no member"))?;
        let (home, seconds) =
            (self.network.path(&caller(self.kinds[from])), self.arguments.seconds.to_string());
        let words = ["netcheck", "--json", "--home", text(&home), "--to", id, "--seconds", &seconds];
        let said = self.network.printed(&host_of_caller(self.kinds, from), &words)?;
        let said: Value = serde_json::from_str(&said)?;
        let node = &said["nodes"][0];
        Ok(Found {
            how: node["reached"].as_str().unwrap_or("nothing").to_owned(),
            first_reply_ms: node["first_reply_ms"].as_f64(),
            direct_after_ms: node["direct_after_ms"].as_f64(),
            round_trip_ms: node["round_trip_ms"].as_f64(),
        })
    }
}

fn caller(kind: Kind) -> String {
    format!("caller-{}", demands::name(kind))
}

fn host_of_caller(kinds: &[Kind], at: usize) -> String {
    format!("host{}", kinds.len() + at)
}

fn table(found: &BTreeMap<(Kind, Kind), Vec<Found>>, arguments: &Arguments) -> Table {
    let heading =
        ["from, to", "how", "first reply ms", "direct ms", "call ms", "direct of (95 %)", "asked", "met"];
    let mut table = Table::new(&heading);
    for ((from, to), calls) in found {
        let of = |value: fn(&Found) -> Option<f64>| {
            let middle = median(calls.iter().filter_map(value));
            middle.map_or_else(|| "-".to_owned(), |middle| format!("{middle:.1}"))
        };
        let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
        calls.iter().for_each(|call| *ways.entry(&call.how).or_default() += 1);
        let ways: Vec<String> = match &ways.iter().collect::<Vec<_>>()[..] {
            [(how, _)] => vec![(*how).to_string()],
            many => many.iter().map(|(how, count)| format!("{how} {count}")).collect(),
        };
        let demand = demand(*from, *to, arguments.into());
        let asked = match demand.direct_within {
            Some(within) => format!("direct {}/10 in {} s", demand.of_ten, within.as_secs_f64()),
            None => "relay".to_owned(),
        };
        table.row(vec![
            format!("{}, {}", demands::name(*from), demands::name(*to)),
            ways.join(" "),
            of(|call| call.first_reply_ms),
            of(|call| call.direct_after_ms),
            of(|call| call.round_trip_ms),
            direct_share(calls),
            asked,
            if is_met(calls, (*from, *to), arguments.into()) { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    table
}

/// How many were reached directly, and the share of all that would be.
fn direct_share(calls: &[Found]) -> String {
    let direct = calls.iter().filter(|call| call.direct_after_ms.is_some()).count();
    let (least, most) = wilson(direct, calls.len());
    format!("{direct} of {} ({:.0} to {:.0} %)", calls.len(), least * 100.0, most * 100.0)
}

fn is_met(calls: &[Found], (from, to): (Kind, Kind), hardship: Hardship) -> bool {
    let demand = demand(from, to, hardship);
    let within =
        |value: Option<f64>, limit: Duration| value.is_some_and(|ms| ms <= limit.as_secs_f64() * 1e3);
    let replies = calls.iter().all(|call| within(call.first_reply_ms, hardship.first_reply()));
    let direct = demand.direct_within.is_none_or(|limit| {
        let count = calls.iter().filter(|call| within(call.direct_after_ms, limit)).count();
        count * 10 >= calls.len() * demand.of_ten as usize
    });
    replies && direct
}
