//! Many networks at once: workers claim whole networks, and each trains its own on one thread.
//!
//! Promises the bits of one fit after the other, whoever trains which network; that one that diverges, runs out of memory or
//! panics spoils no other; that an interrupt stops all between two steps; and that beside the networks' weights there are only as many
//! optimizer states and workspaces as workers (states are kept where that is asked for). All read one copy of the data: a fold
//! is a list of rows. Leaves training itself to `trainer.rs` and passes forward to `infer.rs`.

use super::infer::{self, Spares};
use super::options::Options;
use super::penalty;
use super::sums::StridedSum;
use super::trainer::{self, Workspace};
use super::{Host, POLL_INTERVAL, lock};
use crate::data::Matrix;
use crate::error::Error;
use crate::isa::Isa;
use crate::kernels::Number;
use crate::memory;
use crate::network::{Form, Layer, LayerSpec, Network};
use crate::plan;
use crate::step::TargetData;
use crate::threads::{self, Claims, Team};
use std::cmp::Ordering::Equal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A network of either dtype.
pub enum Trainee<'n> {
    /// Of f32, mixed precision too.
    F32(&'n mut Network<f32>),
    /// Of f64.
    F64(&'n mut Network<f64>),
}

/// A network, what it is trained on and how.
pub struct Job<'j, 'y> {
    /// What is trained.
    pub network: Trainee<'j>,
    /// Its targets, of all rows of the data.
    pub y: &'j TargetData<'y>,
    /// The rows that it answers afterwards.
    pub held_out: Option<&'j [u32]>,
    /// How, and on which rows; `threads` and `report_every` are not looked at.
    pub options: Options<'j>,
}

/// A trained network's answers to the rows held out.
#[derive(Debug, PartialEq)]
pub struct HeldOut {
    /// Their mean loss, with the penalties.
    pub loss: f64,
    /// What the last layer returns, `(rows, n[L])`.
    pub outputs: Outputs,
}

/// Numbers of either dtype.
#[derive(Debug, PartialEq)]
pub enum Outputs {
    /// Of f32.
    F32(Vec<f32>),
    /// Of f64.
    F64(Vec<f64>),
}

/// How training one network ended.
#[derive(Debug)]
pub struct Finished {
    /// Which of the jobs it was.
    pub job: usize,
    /// How long it took.
    pub seconds: f64,
    /// Each epoch's loss and the answers that were asked for, or what went wrong.
    pub outcome: Result<(Vec<f64>, Option<HeldOut>), Error>,
}

/// Who waits for the networks, on the caller's thread: looks for interrupts, hears of each.
pub trait Audience: Send {
    /// Called every few hundredths of a second; an error stops all.
    ///
    /// # Errors
    /// Whatever is to stop the call, such as [`Error::Interrupted`].
    fn poll(&mut self) -> Result<(), Error>;
    /// Called once for every network, in the order in which they end.
    ///
    /// # Errors
    /// Whatever is to stop the call.
    fn finished(&mut self, finished: Finished) -> Result<(), Error>;
}

/// Trains all networks on at most `threads` threads, or on as many as there are; each on one.
///
/// # Errors
/// What the audience stopped the call with: networks in training then have whole steps behind them. An error of one network
/// is its outcome.
pub fn train(
    jobs: Vec<Job<'_, '_>>,
    x: &Matrix<'_>,
    keep_state: bool,
    threads: Option<usize>,
    audience: &mut dyn Audience,
) -> Result<(), Error> {
    let order = largest_first(&jobs, x.rows());
    let threads = threads.unwrap_or_else(threads::limit).min(jobs.len());
    let hall = Hall {
        x,
        keep_state,
        order,
        left: AtomicUsize::new(jobs.len()),
        jobs: jobs.into_iter().map(|job| Mutex::new(Some(job))).collect(),
        claims: Claims::new(1),
        stop: AtomicBool::new(false),
        finished: Mutex::new(Vec::new()),
        news: Condvar::new(),
        audience: Mutex::new(audience),
        stopped_by: Mutex::new(None),
    };
    threads::run(threads, |_: &Team, worker| hall.work(worker))?;
    match hall.stopped_by.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The order in which jobs are claimed: so that the last ones are short, and workers end together.
fn largest_first(jobs: &[Job<'_, '_>], all: usize) -> Vec<usize> {
    let seconds: Vec<f64> = jobs.iter().map(|job| job.seconds(all)).collect();
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|&a, &b| seconds[b].partial_cmp(&seconds[a]).unwrap_or(Equal));
    order
}

impl Job<'_, '_> {
    /// About how long it takes.
    fn seconds(&self, all: usize) -> f64 {
        let rows = self.options.rows.map_or(all, <[u32]>::len).max(1);
        let batch = self.options.batch_size.clamp(1, rows);
        let steps = self.options.epochs as f64 * rows as f64 / batch as f64;
        match &self.network {
            Trainee::F32(network) => plan::training_alone(network, batch, steps),
            Trainee::F64(network) => plan::training_alone(network, batch, steps),
        }
    }
}

/// What the workers share.
struct Hall<'h, 'j, 'x, 'y> {
    x: &'h Matrix<'x>,
    keep_state: bool,
    jobs: Vec<Mutex<Option<Job<'j, 'y>>>>,
    order: Vec<usize>,
    /// One share for all: whoever is free takes the largest that is left.
    claims: Claims,
    /// Jobs that have not ended; changed with `finished` locked.
    left: AtomicUsize,
    stop: AtomicBool,
    finished: Mutex<Vec<Finished>>,
    news: Condvar,
    audience: Mutex<&'h mut dyn Audience>,
    stopped_by: Mutex<Option<Error>>,
}

impl Hall<'_, '_, '_, '_> {
    /// What every worker does; worker 0 is the caller's thread and tells the audience.
    fn work(&self, worker: usize) {
        let _alarm = Alarm { stop: &self.stop, news: &self.news };
        let mut desks = (Desk::<f32>::default(), Desk::<f64>::default());
        let mut attendant = Attendant { hall: self, leads: worker == 0 };
        while let Some(claim) = self.claims.next(0, 1, |w| w * self.order.len()) {
            let at = self.order[claim];
            let job = lock(&self.jobs[at]).take().expect("a job is claimed once");
            if attendant.poll().is_err() {
                return;
            }
            let began = Instant::now();
            let outcome = self.one(job, &mut desks, &mut attendant);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let seconds = began.elapsed().as_secs_f64();
            {
                let mut finished = lock(&self.finished);
                finished.push(Finished { job: at, seconds, outcome });
                self.left.fetch_sub(1, Ordering::Relaxed);
            }
            self.news.notify_all();
        }
        if worker == 0 {
            self.wait_for_the_others(&mut attendant);
        }
    }

    /// Trains one network; what it leaves behind on a desk serves the next of its shape.
    fn one(
        &self,
        job: Job<'_, '_>,
        desks: &mut (Desk<f32>, Desk<f64>),
        attendant: &mut Attendant<'_, '_, '_, '_, '_>,
    ) -> Result<(Vec<f64>, Option<HeldOut>), Error> {
        let Job { network, y, held_out, options } = job;
        let options = Options { threads: Some(1), report_every: 0, ..options };
        let lesson = Lesson { x: self.x, y, held_out, options: &options, keep_state: self.keep_state };
        match network {
            Trainee::F32(network) => Ok(lesson.give(network, &mut desks.0, attendant)?.with(Outputs::F32)),
            Trainee::F64(network) => Ok(lesson.give(network, &mut desks.1, attendant)?.with(Outputs::F64)),
        }
    }

    fn wait_for_the_others(&self, attendant: &mut Attendant<'_, '_, '_, '_, '_>) {
        while attendant.poll().is_ok() {
            let finished = lock(&self.finished);
            let nothing_new = finished.is_empty();
            if nothing_new && self.left.load(Ordering::Relaxed) == 0 {
                return;
            }
            if nothing_new {
                drop(self.news.wait_timeout(finished, POLL_INTERVAL));
            }
        }
    }

    /// Tells the audience what ended, and asks whether to go on.
    fn tell(&self) -> Result<(), Error> {
        let audience = &mut **lock(&self.audience);
        let finished = std::mem::take(&mut *lock(&self.finished));
        finished.into_iter().try_for_each(|finished| audience.finished(finished))?;
        audience.poll()
    }
}

/// Stops all where its worker panics: the others would wait for a job that never ends.
struct Alarm<'h> {
    stop: &'h AtomicBool,
    news: &'h Condvar,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop.store(true, Ordering::Relaxed);
            self.news.notify_all();
        }
    }
}

/// A worker's host: the lead asks the audience, the others look whether it said stop.
struct Attendant<'a, 'h, 'j, 'x, 'y> {
    hall: &'a Hall<'h, 'j, 'x, 'y>,
    leads: bool,
}

impl Host for Attendant<'_, '_, '_, '_, '_> {
    fn poll(&mut self) -> Result<(), Error> {
        let hall = self.hall;
        if self.leads
            && !hall.stop.load(Ordering::Relaxed)
            && let Err(error) = hall.tell()
        {
            lock(&hall.stopped_by).get_or_insert(error);
            hall.stop.store(true, Ordering::Relaxed);
        }
        if hall.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn report(&mut self, _epoch: usize, _loss: f64) -> Result<(), Error> {
        Ok(())
    }
}

/// What decides whether buffers of one network serve another.
#[derive(PartialEq)]
struct Shape {
    /// Inputs, form and specification of each layer.
    layers: Vec<(usize, Form, LayerSpec)>,
    mixed: bool,
    isa: Isa,
}

impl Shape {
    fn of<T: Number>(network: &Network<T>) -> Self {
        let of_layer = |layer: &Layer| (layer.inputs, layer.form, layer.spec());
        let layers = network.layers.iter().map(of_layer).collect();
        Shape { layers, mixed: network.pair_kernels.is_some(), isa: network.isa }
    }
}

/// A worker's buffers, of the shape of network that it trained last.
struct Desk<T> {
    shape: Option<Shape>,
    workspace: Workspace<T>,
    spares: Spares<T>,
}

impl<T: Number> Default for Desk<T> {
    fn default() -> Self {
        Desk { shape: None, workspace: Workspace::new(), spares: Spares::new() }
    }
}

/// What one network learns from, and how.
struct Lesson<'l, 'x, 'y> {
    x: &'l Matrix<'x>,
    y: &'l TargetData<'y>,
    held_out: Option<&'l [u32]>,
    options: &'l Options<'l>,
    keep_state: bool,
}

/// Each epoch's loss; the loss and the outputs of the rows held out.
struct Learned<T>(Vec<f64>, Option<(f64, Vec<T>)>);

impl<T> Learned<T> {
    fn with(self, outputs: impl FnOnce(Vec<T>) -> Outputs) -> (Vec<f64>, Option<HeldOut>) {
        (self.0, self.1.map(|(loss, numbers)| HeldOut { loss, outputs: outputs(numbers) }))
    }
}

impl Lesson<'_, '_, '_> {
    fn give<T: Number>(
        &self,
        network: &mut Network<T>,
        desk: &mut Desk<T>,
        host: &mut dyn Host,
    ) -> Result<Learned<T>, Error> {
        let shape = Shape::of(network);
        if desk.shape.as_ref() != Some(&shape) {
            *desk = Desk { shape: Some(shape), ..Desk::default() };
        }
        let learned =
            threads::contain(|| self.fit(network, desk, host)).unwrap_or_else(|message| Err(Error::Panic(message)));
        if !self.keep_state {
            network.release_state();
        }
        if learned.is_err() {
            // What it left may be no numbers.
            *desk = Desk::default();
        }
        learned
    }

    fn fit<T: Number>(
        &self,
        network: &mut Network<T>,
        desk: &mut Desk<T>,
        host: &mut dyn Host,
    ) -> Result<Learned<T>, Error> {
        let Lesson { x, y, options, .. } = *self;
        let losses = match options.epochs {
            0 => Vec::new(),
            _ => trainer::fit(network, &mut desk.workspace, x, y, options, host)?,
        };
        let held_out = self.held_out.map(|rows| self.answer(network, desk, rows, host)).transpose()?;
        Ok(Learned(losses, held_out))
    }

    /// The loss of the rows held out, and the network's outputs.
    fn answer<T: Number>(
        &self,
        network: &Network<T>,
        desk: &Desk<T>,
        rows: &[u32],
        host: &mut dyn Host,
    ) -> Result<(f64, Vec<T>), Error> {
        let mut outputs = zeros(rows.len().saturating_mul(network.outputs()))?;
        let targets = (self.y, T::from_f64(self.options.loss_scale));
        let losses = infer::infer_rows(network, &desk.spares, self.x, rows, targets, &mut outputs, host)?;
        let mut sum = StridedSum::new();
        losses.iter().for_each(|&loss| sum.add(loss));
        let mean = sum.total() / losses.len() as f64;
        Ok((mean + penalty::penalty(network, self.options.penalty), outputs))
    }
}

fn zeros<T: Number>(len: usize) -> Result<Vec<T>, Error> {
    let bytes = len.saturating_mul(size_of::<T>());
    let mut numbers = Vec::new();
    if !memory::suffices(bytes) || numbers.try_reserve_exact(len).is_err() {
        return Err(Error::Memory { what: "outputs of the rows held out", bytes });
    }
    numbers.resize(len, T::ZERO);
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::data::Dense;
    use crate::kernels::Loss;
    use crate::network::{FIRST, WEIGHTS};
    use crate::train::optimizer::{Kind, Moments, Optimizer};
    use crate::train::penalty::Penalty;
    use crate::train::stretch::Stretch;
    use ndarray::Array2;

    const FEATURES: usize = 5;

    fn network(units: usize, seed: usize) -> Network<f32> {
        let spec = LayerSpec::plain;
        let specs = [spec(units, Activation::Relu), spec(3, Activation::Softmax)];
        let mut network = Network::new(FEATURES, &specs, Loss::CrossEntropy, Isa::choose().unwrap()).unwrap();
        let number = |j: usize, i: usize| ((j * 31 + i * 17 + seed * 7) % 23) as f32 / 23.0 - 0.5;
        (0..2).for_each(|l| network.set_layer(l, number, |_| 0.0));
        network
    }

    fn options(rate: f64) -> Options<'static> {
        let moments = Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let kind = Kind::Adam { moments, amsgrad: false };
        Options {
            epochs: 3,
            batch_size: 16,
            optimizer: Optimizer { learning_rate: rate, weight_decay: 0.0, kind },
            penalty: Penalty::default(),
            clip_value: f64::INFINITY,
            clip_norm: f64::INFINITY,
            average: None,
            muon: None,
            loss_scale: 1.0,
            weights: None,
            rows: None,
            shuffle: true,
            seed: 3,
            threads: None,
            report_every: 0,
            stretch: Stretch::WHOLE,
        }
    }

    /// Remembers what it heard; stops after so many.
    struct Listener {
        heard: Vec<Finished>,
        patience: usize,
    }

    impl Audience for Listener {
        fn poll(&mut self) -> Result<(), Error> {
            Ok(())
        }
        fn finished(&mut self, finished: Finished) -> Result<(), Error> {
            self.heard.push(finished);
            if self.heard.len() < self.patience { Ok(()) } else { Err(Error::Interrupted) }
        }
    }

    struct Nobody;

    impl Host for Nobody {
        fn poll(&mut self) -> Result<(), Error> {
            Ok(())
        }
        fn report(&mut self, _epoch: usize, _loss: f64) -> Result<(), Error> {
            Ok(())
        }
    }

    fn rows_of(x: &Array2<f32>, rows: &[u32]) -> Array2<f32> {
        Array2::from_shape_fn((rows.len(), FEATURES), |(i, c)| x[[rows[i] as usize, c]])
    }

    #[test]
    fn a_panic_of_one_worker_leaves_nobody_waiting() {
        let x = Array2::<f32>::zeros((20, FEATURES));
        let (matrix, y) = (Matrix::Dense(Dense::F32(x.view())), TargetData::Classes(&[0; 20]));
        for _ in 0..20 {
            let mut network = network(8, 0);
            let options = options(0.1);
            let job = Job { network: Trainee::F32(&mut network), y: &y, held_out: None, options };
            let mut listener = Listener { heard: Vec::new(), patience: usize::MAX };
            let hall = Hall {
                x: &matrix,
                keep_state: true,
                order: vec![0, 1],
                left: AtomicUsize::new(2),
                // Whoever claims the second one finds nothing there.
                jobs: vec![Mutex::new(Some(job)), Mutex::new(None)],
                claims: Claims::new(1),
                stop: AtomicBool::new(false),
                finished: Mutex::new(Vec::new()),
                news: Condvar::new(),
                audience: Mutex::new(&mut listener),
                stopped_by: Mutex::new(None),
            };
            let ran = threads::run(2, |_: &Team, worker| hall.work(worker));
            assert_eq!(ran, Err(Error::Panic("a job is claimed once".into())));
        }
    }

    #[test]
    fn folds_read_in_place_give_the_bits_of_copies() {
        let x = Array2::from_shape_fn((100, FEATURES), |(i, c)| ((i * 13 + c * 7) % 29) as f32 / 29.0);
        let classes: Vec<u32> = (0..100).map(|i| i * 7 % 3).collect();
        let y = TargetData::Classes(&classes);
        let matrix = Matrix::Dense(Dense::F32(x.view()));
        let train: Vec<u32> = (0..100).filter(|i| i % 3 != 1).rev().collect();
        let held: Vec<u32> = (0..100).filter(|i| i % 3 == 1).collect();
        let units = [40, 8, 8, 16, 40, 8];
        for (threads, batch_size) in [(1, 16), (2, 16), (3, 1000)] {
            let mut networks: Vec<_> = (0..6).map(|i| network(units[i], i)).collect();
            let jobs = networks.iter_mut().enumerate().map(|(i, network)| Job {
                network: Trainee::F32(network),
                y: &y,
                held_out: Some(&held),
                options: Options { batch_size, rows: Some(&train), ..options(0.01 * (i + 1) as f64) },
            });
            let mut listener = Listener { heard: Vec::new(), patience: usize::MAX };
            train_all(jobs.collect(), &matrix, threads, &mut listener);
            assert_eq!(listener.heard.len(), 6);
            for finished in listener.heard {
                let i = finished.job;
                let mut alone = network(units[i], i);
                let copy = rows_of(&x, &train);
                let labels: Vec<u32> = train.iter().map(|&row| classes[row as usize]).collect();
                let (copy, labels) = (Matrix::Dense(Dense::F32(copy.view())), TargetData::Classes(&labels));
                let options = Options { batch_size, ..options(0.01 * (i + 1) as f64) };
                let mut workspace = Workspace::new();
                let losses = trainer::fit(&mut alone, &mut workspace, &copy, &labels, &options, &mut Nobody).unwrap();
                let (together, held_out) = finished.outcome.unwrap();
                assert_eq!(losses, together);
                assert_eq!(alone.arena.buffer(WEIGHTS), networks[i].arena.buffer(WEIGHTS), "{threads} {i}");
                assert!(networks[i].arena.buffer(FIRST).is_empty(), "its state is given back");
                let Outputs::F32(outputs) = held_out.unwrap().outputs else { panic!("f32") };
                assert_eq!(outputs.len(), held.len() * 3);
            }
        }
    }

    fn train_all(jobs: Vec<Job<'_, '_>>, x: &Matrix<'_>, threads: usize, listener: &mut Listener) {
        train(jobs, x, false, Some(threads), listener).unwrap();
    }

    #[test]
    fn one_that_fails_spoils_no_other_and_an_audience_can_stop_all() {
        let x = Array2::from_shape_fn((60, FEATURES), |(i, c)| ((i * 13 + c * 7) % 29) as f32 / 29.0);
        let classes: Vec<u32> = (0..60).map(|i| i % 3).collect();
        // A class that no output has: a defect that no caller can make.
        let broken: Vec<u32> = vec![7; 60];
        let (y, wrong) = (TargetData::Classes(&classes), TargetData::Classes(&broken));
        let matrix = Matrix::Dense(Dense::F32(x.view()));
        for patience in [usize::MAX, 2] {
            let mut networks: Vec<_> = (0..8).map(|i| network(8, i)).collect();
            let jobs = networks.iter_mut().enumerate().map(|(i, network)| Job {
                network: Trainee::F32(network),
                y: if i == 3 { &wrong } else { &y },
                held_out: None,
                options: options(if i == 5 { 1e38 } else { 0.01 }),
            });
            let mut listener = Listener { heard: Vec::new(), patience };
            let ended = train(jobs.collect(), &matrix, true, Some(2), &mut listener);
            if patience == 2 {
                assert_eq!(ended, Err(Error::Interrupted));
                assert_eq!(listener.heard.len(), 2);
                continue;
            }
            assert_eq!(ended, Ok(()));
            for finished in listener.heard {
                match finished.job {
                    3 => assert!(matches!(finished.outcome, Err(Error::Panic(_)))),
                    5 => assert!(matches!(finished.outcome, Err(Error::Divergence { .. }))),
                    _ => assert_eq!(finished.outcome.unwrap().0.len(), 3),
                }
            }
        }
    }

    #[test]
    fn the_largest_come_first() {
        let classes = [0; 100];
        let y = TargetData::Classes(&classes);
        let mut networks: Vec<_> = [8, 200, 64].into_iter().map(|units| network(units, 0)).collect();
        let jobs: Vec<Job<'_, '_>> = networks
            .iter_mut()
            .map(|network| Job { network: Trainee::F32(network), y: &y, held_out: None, options: options(0.1) })
            .collect();
        assert_eq!(largest_first(&jobs, 100), [1, 2, 0]);
    }
}
