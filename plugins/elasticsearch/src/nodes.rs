//! The nodes of a cluster: they take turns, and one that does not answer is left out for a while.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use exporter_kit::http::Url;
use tokio::time::Instant;

/// The nodes, and whose turn it is.
#[derive(Debug)]
pub struct Nodes {
    nodes: Vec<Node>,
    turn: AtomicUsize,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    url: Url,
    absence: Mutex<Absence>,
}

#[derive(Debug, Default)]
struct Absence {
    failures: u32,
    /// Left out until then.
    until: Option<Instant>,
}

/// How long a node is left out at the most.
const LONGEST: Duration = Duration::from_secs(60);

impl Nodes {
    /// At least one.
    #[must_use]
    pub fn new(urls: Vec<Url>) -> Self {
        let nodes = urls.into_iter().map(|url| Node { url, absence: Mutex::default() }).collect();
        Self { nodes, turn: AtomicUsize::new(0) }
    }

    /// The order in which to ask, each once: those that answer, beginning with the one whose turn it is; then those
    /// that are left out, the one that is back soonest first. So there is always somebody to ask.
    pub fn order(&self, now: Instant) -> Vec<&Node> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.nodes.len();
        let mut order: Vec<_> =
            (0..count).map(|place| &self.nodes[first.wrapping_add(place) % count]).collect();
        // Stable: nodes that answer keep their turns.
        order.sort_by_cached_key(|node| node.absence().until.filter(|until| *until > now));
        order
    }
}

impl Node {
    /// Its address.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// It answered.
    pub fn answered(&self) {
        *self.absence() = Absence::default();
    }

    /// It did not: it is left out for 1 s, and for twice as long each time in a row, up to a minute. Says for how long.
    pub fn failed(&self, now: Instant) -> Duration {
        let mut absence = self.absence();
        let doublings = absence.failures.min(6);
        let time = Duration::from_secs(1 << doublings).min(LONGEST);
        *absence = Absence { failures: absence.failures.saturating_add(1), until: Some(now + time) };
        time
    }

    fn absence(&self) -> MutexGuard<'_, Absence> {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Nodes {
        Nodes::new((0..count).map(|number| Url::parse(&format!("http://{number}.test")).unwrap()).collect())
    }

    fn order(nodes: &Nodes, now: Instant) -> String {
        nodes.order(now).iter().map(|node| &node.url().host_str().unwrap()[..1]).collect()
    }

    #[test]
    fn nodes_take_turns_and_failed_ones_come_last_until_their_time_is_over() {
        let (nodes, now) = (nodes(3), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!([order(&nodes, now), order(&nodes, now), order(&nodes, now)], ["012", "120", "201"]);
        nodes.nodes[0].failed(now);
        assert_eq!([order(&nodes, now), order(&nodes, now)], ["120", "120"]);
        nodes.nodes[2].failed(after(1));
        nodes.nodes[2].failed(after(1));
        assert_eq!(order(&nodes, now), "102", "who is back sooner is asked sooner");
        assert_eq!(order(&nodes, after(1)), "012", "a second is over, but not for 2");
        nodes.nodes[2].answered();
        assert_eq!(order(&nodes, after(1)), "120");
    }

    #[test]
    fn a_single_node_is_always_asked() {
        let (nodes, now) = (nodes(1), Instant::now());
        nodes.nodes[0].failed(now);
        assert_eq!(order(&nodes, now), "0");
    }

    #[test]
    fn time_out_doubles_up_to_a_minute() {
        let (nodes, now) = (nodes(1), Instant::now());
        let seconds: Vec<_> = (0..9).map(|_| nodes.nodes[0].failed(now).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        nodes.nodes[0].answered();
        assert_eq!(nodes.nodes[0].failed(now).as_secs(), 1);
    }
}
