//! The HTTP/2 connections of a pool: which of them takes the next request, who waits for a free stream, and when another
//! connection is needed. It only decides; `super` does.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// One connection of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(u64);

/// A request that waits for a stream.
pub(super) trait Waiter {
    /// Nobody waits any more.
    fn has_left(&self) -> bool;
}

/// `C` is a connection, `W` a request that waits for one.
#[derive(Debug)]
pub(super) struct Streams<C, W> {
    connections: Vec<Entry<C>>,
    waiting: VecDeque<W>,
    /// Connections under way.
    connecting: usize,
    /// How many streams the connection opened last takes: the best guess for the next one.
    expected: usize,
    last_id: u64,
}

#[derive(Debug)]
struct Entry<C> {
    id: Id,
    connection: C,
    open: usize,
    /// As many as the server allows.
    limit: usize,
    /// It refused a stream below its limit: it gets none until one of its others has ended.
    is_full: bool,
    /// Refused streams that have not been released.
    refused: usize,
    /// It gets no further streams, and goes with its last one.
    is_given_up: bool,
    idle_since: Option<Instant>,
}

impl<C> Entry<C> {
    fn has_room(&self) -> bool {
        !self.is_given_up && !self.is_full && self.open < self.limit
    }
}

impl<C, W> Default for Streams<C, W> {
    fn default() -> Self {
        let (connections, waiting) = (Vec::new(), VecDeque::new());
        Self { connections, waiting, connecting: 0, expected: usize::MAX, last_id: 0 }
    }
}

impl<C, W: Waiter> Streams<C, W> {
    /// A stream, if one is free: of the connection with the fewest left, so that what is not needed falls idle.
    pub(super) fn take(&mut self) -> Option<(Id, &C)> {
        let entry =
            self.connections.iter_mut().filter(|entry| entry.has_room()).max_by_key(|entry| entry.open)?;
        entry.open += 1;
        entry.idle_since = None;
        Some((entry.id, &entry.connection))
    }

    /// A stream for the request that has waited longest.
    pub(super) fn take_for_waiting(&mut self) -> Option<(W, Id, &C)> {
        while self.waiting.front().is_some_and(W::has_left) {
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() || !self.connections.iter().any(Entry::has_room) {
            return None;
        }
        let waiter = self.waiting.pop_front()?;
        let (id, connection) = self.take()?;
        Some((waiter, id, connection))
    }

    /// No stream is free: the request waits.
    pub(super) fn wait(&mut self, waiter: W) {
        self.waiting.push_back(waiter);
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many connections are to be begun now: as many as those that wait will fill, less those under way.
    pub(super) fn begin(&mut self) -> usize {
        self.waiting.retain(|waiter| !waiter.has_left());
        let needed = self.waiting.len().div_ceil(self.expected.max(1));
        let more = needed.saturating_sub(self.connecting);
        self.connecting += more;
        more
    }

    /// A connection that was begun stands.
    pub(super) fn opened(&mut self, connection: C, limit: usize, now: Instant) -> Id {
        self.connecting = self.connecting.saturating_sub(1);
        self.expected = limit;
        self.last_id += 1;
        let id = Id(self.last_id);
        let idle_since = Some(now);
        self.connections.push(Entry {
            id,
            connection,
            open: 0,
            limit,
            is_full: false,
            refused: 0,
            is_given_up: false,
            idle_since,
        });
        id
    }

    /// Nothing came of a connection that was begun. Those who have nothing left to wait for.
    pub(super) fn failed(&mut self) -> VecDeque<W> {
        self.connecting = self.connecting.saturating_sub(1);
        let is_hope = self.connecting > 0 || self.connections.iter().any(|entry| !entry.is_given_up);
        if is_hope { VecDeque::new() } else { std::mem::take(&mut self.waiting) }
    }

    /// The connection that was begun speaks something else: whoever waits has to look elsewhere.
    pub(super) fn is_other_protocol(&mut self) -> VecDeque<W> {
        self.connecting = self.connecting.saturating_sub(1);
        std::mem::take(&mut self.waiting)
    }

    /// A stream has ended.
    pub(super) fn release(&mut self, id: Id, now: Instant) {
        let Some(entry) = self.find(id) else { return };
        entry.open = entry.open.saturating_sub(1);
        match entry.refused {
            0 => entry.is_full = false,
            // That one made no room.
            _ => entry.refused -= 1,
        }
        if entry.open == 0 {
            entry.idle_since = Some(now);
            if entry.is_given_up {
                self.remove(id);
            }
        }
    }

    /// The server refused a stream that it should have had room for. If it has no other, it takes none at all.
    pub(super) fn refused(&mut self, id: Id) {
        let Some(entry) = self.find(id) else { return };
        entry.is_full = true;
        entry.refused += 1;
        entry.is_given_up |= entry.open <= 1;
    }

    /// No further streams on this connection: it is silent, or on its way out.
    pub(super) fn give_up(&mut self, id: Id) {
        let Some(entry) = self.find(id) else { return };
        entry.is_given_up = true;
        if entry.open == 0 {
            self.remove(id);
        }
    }

    /// The server allows more or fewer streams than before.
    pub(super) fn allow(&mut self, id: Id, limit: usize) {
        self.expected = limit;
        if let Some(entry) = self.find(id) {
            entry.limit = limit;
        }
    }

    /// Gives a connection up that had no stream for so long; whether it did.
    pub(super) fn expire(&mut self, id: Id, longest: Duration, now: Instant) -> bool {
        let since = self.find(id).and_then(|entry| entry.idle_since);
        let is_old = since.is_some_and(|since| now.saturating_duration_since(since) > longest);
        if is_old {
            self.give_up(id);
        }
        is_old
    }

    /// The connection has ended.
    pub(super) fn remove(&mut self, id: Id) {
        self.connections.retain(|entry| entry.id != id);
    }

    fn find(&mut self, id: Id) -> Option<&mut Entry<C>> {
        self.connections.iter_mut().find(|entry| entry.id == id)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Request(Rc<Cell<bool>>);

    impl Waiter for Request {
        fn has_left(&self) -> bool {
            self.0.get()
        }
    }

    struct Pool {
        streams: Streams<char, Request>,
        now: Instant,
    }

    impl Pool {
        fn new() -> Self {
            Self { streams: Streams::default(), now: Instant::now() }
        }

        /// So many requests that find no stream; how many connections are begun for them.
        fn wait(&mut self, count: usize) -> usize {
            (0..count)
                .map(|_| {
                    self.streams.wait(Request::default());
                    self.streams.begin()
                })
                .sum()
        }

        fn open(&mut self, connection: char, limit: usize) -> Id {
            self.streams.opened(connection, limit, self.now)
        }

        fn take(&mut self) -> Option<(Id, char)> {
            self.streams.take().map(|(id, connection)| (id, *connection))
        }

        fn serve(&mut self) -> usize {
            std::iter::from_fn(|| self.streams.take_for_waiting().map(|_| ())).count()
        }

        fn release(&mut self, id: Id) {
            self.streams.release(id, self.now);
        }
    }

    #[test]
    fn a_connection_takes_as_many_as_its_limit_and_not_one_more() {
        for limit in [1, 2, 10, 100] {
            let mut pool = Pool::new();
            let id = pool.open('a', limit);
            for _ in 0..limit {
                assert_eq!(pool.take(), Some((id, 'a')));
            }
            assert_eq!(pool.take(), None);
            pool.release(id);
            assert_eq!(pool.take(), Some((id, 'a')));
        }
    }

    #[test]
    fn requests_that_come_while_a_connection_is_made_wait_for_it() {
        let mut pool = Pool::new();
        assert_eq!(pool.wait(1_000), 1, "one connect, and not one for each");
        pool.open('a', usize::MAX);
        assert_eq!(pool.serve(), 1_000);
        assert_eq!(pool.streams.begin(), 0);
    }

    #[test]
    fn as_many_connections_are_made_as_those_who_wait_will_fill() {
        for (waiting, further) in [(10, 0), (11, 1), (20, 1), (21, 2), (40, 3), (1_000, 99)] {
            let mut pool = Pool::new();
            assert_eq!(pool.wait(waiting), 1);
            pool.open('a', 10);
            assert_eq!(pool.serve(), waiting.min(10));
            assert_eq!(pool.streams.begin(), further, "{waiting} at 10 a connection");
            for _ in 0..further {
                pool.open('b', 10);
                pool.serve();
            }
            assert!(!pool.streams.has_waiting());
        }
    }

    #[test]
    fn a_stream_that_ends_goes_to_the_one_that_has_waited_longest_and_is_still_there() {
        let mut pool = Pool::new();
        let id = pool.open('a', 1);
        pool.take();
        let [gone, first] = [Request::default(), Request::default()];
        pool.streams.wait(gone.clone());
        pool.streams.wait(first.clone());
        gone.0.set(true);
        assert!(pool.streams.take_for_waiting().is_none());
        pool.release(id);
        let (served, _, _) = pool.streams.take_for_waiting().unwrap();
        assert!(Rc::ptr_eq(&served.0, &first.0));
        assert_eq!(pool.streams.begin(), 0, "nobody waits");
    }

    #[test]
    fn the_fullest_connection_is_used_and_the_others_fall_idle() {
        let mut pool = Pool::new();
        let (a, b) = (pool.open('a', 3), pool.open('b', 3));
        let first = pool.take().unwrap().0;
        for _ in 0..2 {
            assert_eq!(pool.take().unwrap().0, first);
        }
        let other = if first == a { b } else { a };
        assert_eq!(pool.take().unwrap().0, other);
        pool.release(other);
        let minute = Duration::from_secs(60);
        assert!(!pool.streams.expire(other, minute, pool.now + minute));
        assert!(!pool.streams.expire(first, minute, pool.now + 10 * minute), "it has streams");
        assert!(pool.streams.expire(other, minute, pool.now + minute + Duration::from_millis(1)));
        assert_eq!(pool.streams.connections.len(), 1);
    }

    #[test]
    fn a_connection_that_is_given_up_goes_with_its_last_stream() {
        let mut pool = Pool::new();
        let id = pool.open('a', 10);
        pool.take();
        pool.take();
        pool.streams.give_up(id);
        assert_eq!(pool.take(), None);
        pool.release(id);
        assert_eq!(pool.streams.connections.len(), 1);
        pool.release(id);
        assert!(pool.streams.connections.is_empty());
        pool.release(id);
    }

    #[test]
    fn a_connection_that_refuses_gets_nothing_until_one_of_its_streams_has_ended() {
        let mut pool = Pool::new();
        let id = pool.open('a', 10);
        pool.take();
        pool.take();
        pool.take();
        pool.streams.refused(id);
        pool.release(id);
        assert_eq!(pool.take(), None, "what was refused made no room");
        pool.release(id);
        assert!(pool.take().is_some());
    }

    #[test]
    fn a_connection_that_refuses_its_only_stream_is_given_up() {
        let mut pool = Pool::new();
        let id = pool.open('a', 10);
        pool.take();
        pool.streams.refused(id);
        pool.release(id);
        assert_eq!(pool.take(), None);
        assert!(pool.streams.connections.is_empty());
    }

    #[test]
    fn who_waits_learns_of_a_failure_when_there_is_nothing_left_to_wait_for() {
        let mut pool = Pool::new();
        pool.wait(5);
        assert_eq!(pool.streams.failed().len(), 5);
        let id = pool.open('a', 1);
        pool.take();
        assert_eq!(pool.wait(2), 2);
        assert_eq!(pool.streams.failed().len(), 0, "another connect is under way");
        assert_eq!(pool.streams.failed().len(), 0, "a stream may still end");
        pool.release(id);
        assert_eq!(pool.serve(), 1);
    }

    #[test]
    fn a_limit_that_changes_holds_from_then_on() {
        let mut pool = Pool::new();
        let id = pool.open('a', 1);
        pool.take();
        pool.streams.allow(id, 2);
        assert!(pool.take().is_some());
        pool.streams.allow(id, 1);
        pool.release(id);
        assert_eq!(pool.take(), None, "one is still open");
    }
}
