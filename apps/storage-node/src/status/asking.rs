//! Asking the nodes of a network how they are, as they are now.

use std::time::Duration;

use bytes::Bytes;
use overlay::{Contact, Node, Overlay, TurnedAway};
use reactor::rpc::CallError;

use super::ANSWER_LIMIT;
use crate::clocks;
use crate::output::others_words;
use crate::remove::on_each;
use crate::report::{OwnCopies, Report, ReportMethod, ReportRefused};

/// How long `status` waits until all have compared what they have, and how often it looks.
const COMPARE_LIMIT: Duration = Duration::from_secs(60);
const COMPARE_PAUSE: Duration = Duration::from_millis(100);
/// Characters of what a node says in words.
const WORDS_MAX: usize = 200;

/// What each node says of itself, once it has compared what it has with the others since it was asked, as far as that does not take too
/// long: with what was stored without it a moment ago it would say that nothing is lacking.
pub(super) fn reports_of_now(overlay: &Node, nodes: &[Contact]) -> Vec<Result<Report, String>> {
    let began = reactor::now();
    loop {
        let since = reactor::now() - began;
        let reports = on_each(overlay, nodes, |overlay, contact| {
            let before_ms = clocks::now_ms();
            match overlay.call::<ReportMethod>(contact, &(), Bytes::new(), ANSWER_LIMIT) {
                Ok((mut report, _)) => {
                    let ahead_s = |theirs| clocks::ahead_s(theirs, before_ms, clocks::now_ms());
                    report.clock_ahead_s = report.clock_ms.map(ahead_s);
                    Ok(with_words_bounded(report))
                }
                Err(error) => Err(turned_away(overlay, contact).unwrap_or_else(|| in_plain_words(&error))),
            }
        });
        let mut reports: Vec<Result<Report, String>> =
            reports.into_iter().map(|report| report.unwrap_or_else(|| Err("interrupted".into()))).collect();
        let is_of_now = |report: &Result<Report, String>| match report {
            Ok(report) => report.has_compared_within(since),
            // Not healthy in any case.
            Err(_) => true,
        };
        let all_answer = reports.iter().all(Result::is_ok);
        if !all_answer || reports.iter().all(is_of_now) {
            return reports;
        }
        if since >= COMPARE_LIMIT {
            // They may lack what was stored since their last comparison.
            for report in reports.iter_mut().filter(|report| !is_of_now(report)) {
                report
                    .iter_mut()
                    .filter_map(|report| report.own_copies.as_mut())
                    .for_each(OwnCopies::are_of_before);
            }
            return reports;
        }
        reactor::sleep(COMPARE_PAUSE);
    }
}

/// What it says in words is a part of a line of ours, and not a long one.
fn with_words_bounded(report: Report) -> Report {
    Report {
        version: others_words(&report.version, WORDS_MAX),
        failure: report.failure.map(|failure| others_words(&failure, WORDS_MAX)),
        ..report
    }
}

/// That one of the two ends refuses the other, if so.
fn turned_away(overlay: &Node, contact: &Contact) -> Option<String> {
    let all = overlay.peers().turned_away();
    let (_, why) = all.into_iter().find(|(key, _)| *key == contact.public_key)?;
    Some(match why {
        TurnedAway::Us(why) => {
            format!("it refuses this user: {}", others_words(&why.to_string(), WORDS_MAX))
        }
        TurnedAway::Them(why) => format!("this machine refuses it: {why}"),
    })
}

/// Why a node gave no report, for somebody who runs it and does not program it.
fn in_plain_words(error: &CallError<ReportRefused>) -> String {
    match error {
        CallError::NotSent | CallError::Closed => "it cannot be reached, or lets nobody in".into(),
        CallError::TimedOut => format!("nothing came within {} s", ANSWER_LIMIT.as_secs()),
        CallError::Remote(refused) => others_words(&refused.to_string(), WORDS_MAX),
        other => others_words(&other.to_string(), WORDS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member's node had `status` say that all was well.
    #[test]
    fn what_a_node_says_is_a_part_of_one_line() {
        let forged = || format!("x\n\nhealthy: every node answers\n{}", "y\n".repeat(1 << 20));
        let is_within_a_line = |said: &str| !said.contains('\n') && said.chars().count() < 1000;
        let (refused, denied) = (CallError::Remote(ReportRefused(forged())), CallError::Denied(forged()));
        assert!([refused, denied].iter().all(|error| is_within_a_line(&in_plain_words(error))));
        let report = Report { version: forged(), failure: Some(forged()), ..Report::default() };
        let report = with_words_bounded(report);
        assert!(is_within_a_line(&report.version) && is_within_a_line(&report.fault().unwrap()));
    }
}
