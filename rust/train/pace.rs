//! How many of a call's workers take part, decided by what steps took: threads that never hurt.
//!
//! Where another program uses a processor, a worker is late, and all others wait for it at the barriers: the call may then be
//! slower than with fewer workers. Its sign is that workers sleep there, which they hardly do on processors of their own.
//! Then fewer take part for a while, the number that was fastest when each was tried; after that all again, and
//! where that is no better, again after a longer while. This changes no bit of a result, only its time.

use arrayvec::ArrayVec;

/// Seconds of a look at all workers: several times what a scheduler gives to a program at once.
const LOOK: f64 = 12e-3;
/// Seconds of a look at fewer.
const SHORT_LOOK: f64 = 2e-3;
/// The part of a look's time that a worker may sleep before that is a sign: all but one can.
const SLEEP: f64 = 0.1;
/// The same where a step is longer than a look, so that a trial takes a whole one: of two workers who are held up in turn, one alone
/// is as fast where each sleeps half the time.
const LONG_SLEEP: f64 = 0.4;
/// Seconds before all are tried again, at first and at most; the programs that spin for a tenth of a second after their work
/// are many.
const HOLDS: (f64, f64) = (10e-3, 160e-3);
/// Times the seconds of trials that a choice stands at least, so that trials take few of all, however long steps are.
const REST: f64 = 20.0;
/// What a hold grows by after one that was in vain: what was disturbed for some time is held for half as long at most after it.
const GROWTH: f64 = 1.5;
/// Steps of so many times fewer workers' time end a trial of all.
const HOPELESS: f64 = 2.0;
/// All workers are worth it where their time is below this part of fewer workers'.
const WORTH: f64 = 0.9;

/// What is done with the look that is going on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Work goes on like this.
    Settled(usize),
    /// It is compared.
    Trying(usize),
}

/// Chooses among some numbers of workers.
#[derive(Debug)]
pub struct Pace {
    threads: usize,
    rows: usize,
    updates: bool,
    /// What is chosen from: all, and fewer.
    counts: ArrayVec<usize, 4>,
    /// Seconds a step in the last look at each.
    times: [f64; 4],
    mode: Mode,
    /// The look so far: seconds, steps, and seconds slept.
    look: (f64, f64, f64),
    /// How long the next choice stands.
    hold: f64,
    /// What is left of it.
    left: f64,
    /// Seconds of the trials that are going on.
    tried: f64,
}

impl Pace {
    /// For steps on so many rows, with updates or without, by at most `threads` workers, of whom all begin.
    pub fn new(threads: usize, rows: usize, updates: bool) -> Self {
        let mut counts = ArrayVec::new();
        for count in [threads, threads.saturating_sub(1), threads / 2, 1] {
            if count > 0 && counts.last().is_none_or(|&last| count < last) {
                counts.push(count);
            }
        }
        let (mode, look) = (Mode::Settled(0), (0.0, 0.0, 0.0));
        let times = [f64::INFINITY; 4];
        Pace { threads, rows, updates, counts, times, mode, look, hold: HOLDS.0, left: 0.0, tried: 0.0 }
    }

    /// Whether it is about such steps.
    pub fn is_of(&self, threads: usize, rows: usize, updates: bool) -> bool {
        (self.threads, self.rows, self.updates) == (threads, rows, updates)
    }

    /// How many take part in the next step.
    pub fn active(&self) -> usize {
        let (Mode::Settled(i) | Mode::Trying(i)) = self.mode;
        self.counts[i]
    }

    /// How many may take part within so many steps.
    pub fn most_within(&self, steps: f64) -> usize {
        match self.mode {
            Mode::Settled(i) if i > 0 && steps * self.times[i] < self.left - self.look.0 => self.counts[i],
            _ => self.threads,
        }
    }

    /// A step took so many seconds, of which workers slept some, added up.
    pub fn step(&mut self, seconds: f64, slept: f64) {
        let (all, steps, asleep) = &mut self.look;
        (*all, *steps, *asleep) = (*all + seconds, *steps + 1.0, *asleep + slept);
        let (seconds, steps, _) = self.look;
        let enough = match self.mode {
            Mode::Trying(0) if seconds > HOPELESS * steps * self.times[self.best_of_fewer()] => SHORT_LOOK,
            Mode::Settled(0) | Mode::Trying(0) => LOOK,
            Mode::Settled(_) | Mode::Trying(_) => SHORT_LOOK,
        };
        if seconds >= enough {
            self.decide();
        }
    }

    fn decide(&mut self) {
        let (seconds, steps, slept) = std::mem::take(&mut self.look);
        let (Mode::Settled(i) | Mode::Trying(i)) = self.mode;
        self.times[i] = seconds / steps;
        self.left -= seconds;
        let others = (self.counts[i] - 1).max(1) as f64;
        let sign = if steps > 1.0 { SLEEP } else { LONG_SLEEP };
        self.mode = match self.mode {
            Mode::Settled(0) if self.left <= 0.0 && slept > sign * seconds * others => {
                // What fewer took at another time tells nothing now.
                self.times[1..].fill(f64::INFINITY);
                self.tried = 0.0;
                Mode::Trying(1)
            }
            Mode::Settled(i) if i > 0 && self.left <= 0.0 => {
                self.tried = 0.0;
                Mode::Trying(0)
            }
            Mode::Settled(i) => {
                if i == 0 && self.left <= 0.0 {
                    // Quiet for as long as this: what disturbed is forgotten bit by bit.
                    self.hold = (self.hold / GROWTH).max(HOLDS.0);
                }
                Mode::Settled(i)
            }
            Mode::Trying(i) => self.tried(i, seconds),
        };
    }

    /// What follows a trial.
    fn tried(&mut self, i: usize, seconds: f64) -> Mode {
        self.tried += seconds;
        if i > 0 && i + 1 < self.counts.len() && self.times[i] < self.times[i - 1] {
            return Mode::Trying(i + 1);
        }
        let fewer = self.best_of_fewer();
        let best = if self.times[0] >= WORTH * self.times[fewer] { fewer } else { 0 };
        // What was tried in vain is not tried again soon. A trial of all may end well by luck, so that does not undo the hold.
        if (i == 0) == (best > 0) {
            self.hold = (GROWTH * self.hold).min(HOLDS.1);
        }
        self.left = self.hold.max(REST * self.tried);
        Mode::Settled(best)
    }

    fn best_of_fewer(&self) -> usize {
        let times = |&i: &usize| self.times[i];
        (1..self.counts.len()).min_by(|i, j| times(i).total_cmp(&times(j))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;

    /// Runs `seconds` of steps; `time` gives a step's seconds and sleep by workers and the time it begins. Returns the mean
    /// seconds of a step, and the part of the time with `count` workers.
    fn run(pace: &mut Pace, seconds: f64, count: usize, time: impl Fn(usize, f64) -> (f64, f64)) -> (f64, f64) {
        let (mut now, mut steps, mut with) = (0.0, 0.0, 0.0);
        while now < seconds {
            let active = pace.active();
            let (step, slept) = time(active, now);
            pace.step(step, slept);
            (now, steps) = (now + step, steps + 1.0);
            with += if active == count { step } else { 0.0 };
        }
        (now / steps, with / now)
    }

    #[test]
    fn nobody_rests_on_quiet_processors() {
        for threads in [2, 3, 8] {
            let mut pace = Pace::new(threads, 100, true);
            let (_, all) = run(&mut pace, 1.0, threads, |n, _| (1e-4 / n as f64, 0.0));
            assert_eq!(all, 1.0);
        }
    }

    #[test]
    fn one_works_alone_beside_a_busy_neighbour() {
        // The neighbour has the second processor for 3 of every 6 ms, and nobody goes on without its worker.
        let time = |n: usize, now: f64| match n {
            1 => (1e-4, 0.0),
            _ if now % 6e-3 < 3e-3 => (0.6e-4, 0.0),
            _ => (3e-3, 2.9e-3),
        };
        let mut pace = Pace::new(2, 100, true);
        let (mean, alone) = run(&mut pace, 4.0, 1, time);
        assert!(mean < 1.04e-4 && alone > 0.9, "{mean} {alone}");
        // Once it is gone, both work again.
        run(&mut pace, 0.2, 2, |n, _| (1e-4 / n as f64, 0.0));
        assert_eq!(run(&mut pace, 1.0, 2, |n, _| (1e-4 / n as f64, 0.0)).1, 1.0);
    }

    #[test]
    fn a_short_disturbance_is_over_soon_after_it_ends() {
        let disturbed = |n: usize, _: f64| if n == 1 { (1e-4, 0.0) } else { (3e-4, 2e-4) };
        let mut pace = Pace::new(2, 100, true);
        run(&mut pace, 0.1, 2, disturbed);
        let (_, both) = run(&mut pace, 0.1, 2, |n, _| (1e-4 / n as f64, 0.0));
        assert!(both > 0.45, "{both}");
    }

    #[test]
    fn sleep_that_costs_little_is_borne() {
        // Two are faster although one sleeps: fewer are tried ever less often.
        let mut pace = Pace::new(2, 100, true);
        let (_, both) = run(&mut pace, 4.0, 2, |n, _| if n == 1 { (1e-4, 0.0) } else { (0.6e-4, 0.1e-4) });
        assert!(both > 0.98, "{both}");
    }

    #[test]
    fn of_many_workers_one_rests() {
        let time = |n: usize, _: f64| if n == 8 { (1e-4, 3.5e-4) } else { (2e-4 / n as f64, 0.0) };
        let mut pace = Pace::new(8, 100, true);
        let (_, seven) = run(&mut pace, 4.0, 7, time);
        assert!(seven > 0.9, "{seven}");
    }

    #[test]
    fn long_steps_are_seldom_tried_with_fewer() {
        // A second on one worker, and imbalance lets the others of eight sleep for a fifth of a step.
        for alone in [1e-3, 0.2, 8.0] {
            let mut pace = Pace::new(8, 100, true);
            let time = |n: usize, _: f64| {
                (alone / n as f64, if n > 1 { 0.2 * alone / n as f64 * (n - 1) as f64 } else { 0.0 })
            };
            let (mean, all) = run(&mut pace, 100.0 * alone, 8, time);
            assert!(mean < 1.06 * alone / 8.0, "{alone} {mean}");
            // Where a trial is a whole step, that little sleep is no sign.
            assert!(alone < 0.1 || all == 1.0, "{alone} {all}");
        }
    }

    #[test]
    fn long_steps_that_are_held_up_are_tried_with_fewer() {
        let time = |n: usize, _: f64| if n == 2 { (0.3, 0.2) } else { (0.1, 0.0) };
        let (mean, alone) = run(&mut Pace::new(2, 100, true), 60.0, 1, time);
        assert!(mean < 0.12 && alone > 0.8, "{mean} {alone}");
    }

    #[test]
    fn short_calls_start_no_worker_that_is_to_rest() {
        let mut pace = Pace::new(2, 100, true);
        assert_eq!(pace.most_within(10.0), 2);
        while pace.active() == 2 {
            pace.step(1e-3, 0.9e-3);
        }
        while pace.most_within(1.0) == 2 {
            pace.step(1e-4, 0.0);
        }
        assert_eq!((pace.active(), pace.most_within(1e6)), (1, 2));
    }
}
