//! A child process: what it said, what it used, and its end.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::Error;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A child that ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
        Ok(Self { child })
    }

    pub(crate) fn stdout(&mut self) -> Option<impl Read + Send + 'static> {
        self.child.stdout.take()
    }

    pub(crate) fn stderr(&mut self) -> Option<impl Read + Send + 'static> {
        self.child.stderr.take()
    }

    /// CPU time used so far by all threads, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end between being listed and being read.
            let Ok(stat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanoseconds += stat.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// CPU time once it has stopped to grow: what a request left to do in the background counts, too.
    pub(crate) fn settled_cpu(&self, limit: Duration) -> Result<Duration, Error> {
        const STEP: Duration = Duration::from_millis(50);
        const IDLE: Duration = Duration::from_micros(500);
        let begun = Instant::now();
        let mut before = self.cpu()?;
        let mut quiet = 0;
        while quiet < 3 && begun.elapsed() < limit {
            thread::sleep(STEP);
            let now = self.cpu()?;
            quiet = if now.saturating_sub(before) < IDLE { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(before)
    }

    /// Resident memory, once readings agree.
    pub(crate) fn settled_memory(&self) -> Result<u64, Error> {
        let mut before = self.memory()?;
        let mut same = 0;
        for _ in 0..40 {
            thread::sleep(Duration::from_millis(50));
            let now = self.memory()?;
            same = if now == before { same + 1 } else { 0 };
            before = now;
            if same == 3 {
                break;
            }
        }
        Ok(before)
    }

    /// Resident memory now.
    pub(crate) fn memory(&self) -> Result<u64, Error> {
        // Exact, where the status file's figure lags by some pages per thread.
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line =
            rollup.lines().find_map(|line| line.strip_prefix("Rss:")).ok_or("no Rss in smaps_rollup")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for one line for each announcement, in any order; what comes after is read and thrown away, so that the child
/// never blocks.
pub(crate) fn announced<const N: usize>(
    output: impl Read + Send + 'static,
    announcements: [&'static str; N],
) -> Result<[SocketAddr; N], Error> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            sender.send(line).ok();
        }
    });
    let deadline = Instant::now() + START_LIMIT;
    let mut found = [None; N];
    let mut said = Vec::new();
    while let Ok(line) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        for (address, announcement) in found.iter_mut().zip(announcements) {
            *address = address.or_else(|| address_after(&line, announcement));
        }
        if let Some(addresses) = found.iter().copied().collect::<Option<Vec<_>>>() {
            return addresses.try_into().map_err(|_| "as many addresses as announcements".into());
        }
        said.push(line);
    }
    Err(format!("no lines with {announcements:?}; it said:\n{}", said.join("\n")).into())
}

fn address_after(line: &str, announcement: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(announcement)?;
    let end = rest.find(|c: char| !matches!(c, '0'..='9' | '.' | ':')).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Waits until someone listens.
pub(crate) fn wait_until_listening(process: &mut Process, address: SocketAddr) -> Result<(), Error> {
    let deadline = Instant::now() + START_LIMIT;
    while TcpStream::connect(address).is_err() {
        if process.has_ended() || Instant::now() > deadline {
            return Err(format!("nobody listens on {address}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Ports that were free a moment ago, for servers that cannot choose one themselves.
pub(crate) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N], Error> {
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    // All are held before the first is let go, so that no two are the same.
    let listeners: Vec<TcpListener> =
        (0..N).map(|_| TcpListener::bind(addresses[0])).collect::<Result<_, _>>()?;
    for (address, listener) in addresses.iter_mut().zip(&listeners) {
        *address = listener.local_addr()?;
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_a_log_line() {
        let expect = Some(SocketAddr::from(([127, 0, 0, 1], 3000)));
        let check = |line| assert_eq!(address_after(line, "listening on http://"), expect, "{line}");
        check("listening on http://127.0.0.1:3000");
        check("2026-01-01T00:00:00Z INFO listening on http://127.0.0.1:3000\u{1b}[0m");
        assert_eq!(address_after("admin on http://127.0.0.1:3000", "listening on http://"), None);
    }

    #[test]
    fn busy_work_shows_as_cpu_time() {
        let mut command = Command::new("sh");
        let process = Process::spawn(command.args(["-c", "while :; do :; done"])).expect("sh");
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.cpu().expect("proc") < Duration::from_millis(5) {
            assert!(Instant::now() < deadline, "a busy child uses CPU");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
