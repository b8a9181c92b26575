//! The processor time of other programs while something is measured.

/// Processor times so far, all in the same unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ProcessorTime {
    processors: u64,
    /// The time of all processors, idle or not.
    passed: u64,
    /// The time in which a processor was busy, also for the machine's host.
    used: u64,
    /// The time of this process.
    own: u64,
}

impl ProcessorTime {
    /// The times now, where the system reports them (`/proc` on Linux).
    pub(crate) fn now() -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).ok();
        parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// The share of the processors of `threads` threads that others used since `before`. Processors that this
    /// process does not need are free for them and do not count.
    pub(crate) fn taken_since(self, before: Self, threads: usize) -> Option<f64> {
        let [passed, used, own] =
            [self.passed - before.passed, self.used - before.used, self.own - before.own].map(|t| t as f64);
        let (processors, threads) = (self.processors as f64, threads as f64);
        if passed == 0.0 || threads == 0.0 {
            return None;
        }
        // The two files are read one after the other, so the difference can be negative.
        let others = (used - own).max(0.0) / passed * processors;
        let wanted = threads.min(processors);
        Some(((others + wanted - processors) / wanted).clamp(0.0, 1.0))
    }
}

/// Parses `/proc/stat` (`cpu user nice system idle iowait irq softirq steal …`) and `/proc/self/stat`.
fn parse(machine: &str, process: &str) -> Option<ProcessorTime> {
    let numbers = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().ok();
    let all = numbers(machine.lines().find_map(|line| line.strip_prefix("cpu "))?)?;
    let processors =
        machine.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let [idle, iowait] = [*all.get(3)?, *all.get(4)?];
    let passed: u64 = all.iter().take(8).sum();
    // The command's name, in brackets, may contain anything.
    let mut fields = process.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let own = ticks()? + ticks()?;
    Some(ProcessorTime { processors: processors as u64, passed, used: passed - idle - iowait, own })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "cpu  100 10 40 800 30 5 5 10 7 0\ncpu0 50 5 20 400 15 2 3 5 3 0\n\
                           cpu1 50 5 20 400 15 3 2 5 4 0\nintr 12\n";

    #[test]
    fn linux_counts_in_these_columns() {
        let process = "42 (a) b c) R 1 42 42 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 3 0 99 1000 10";
        let expected = ProcessorTime { processors: 2, passed: 1000, used: 170, own: 42 };
        assert_eq!(parse(MACHINE, process), Some(expected));
        assert_eq!(parse("", process), None);
        assert_eq!(parse("cpu  1 2 x\n", process), None);
        assert_eq!(parse(MACHINE, "42 (a) R 1"), None);
    }

    #[test]
    fn what_is_taken_is_what_our_threads_lack() {
        let before = ProcessorTime { processors: 4, passed: 1000, used: 500, own: 100 };
        let after = |own, others| {
            let ProcessorTime { processors, passed, used, own: had } = before;
            ProcessorTime { processors, passed: passed + 400, used: used + own + others, own: had + own }
        };
        let taken = |own, others, threads| after(own, others).taken_since(before, threads).unwrap();
        assert_eq!(taken(400, 0, 4), 0.0);
        assert_eq!(taken(200, 100, 4), 0.25);
        assert_eq!(taken(200, 200, 2), 0.0, "two processors are nobody's");
        assert_eq!(taken(100, 300, 2), 0.5);
        assert_eq!(taken(0, 400, 8), 1.0);
        assert_eq!(before.taken_since(before, 4), None, "no time went by");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells() {
        let now = ProcessorTime::now().expect("of this machine");
        assert!(now.processors > 0 && now.used <= now.passed);
    }
}
