//! What the last worker to arrive at a barrier does: the bookkeeping between two phases, and which comes next.

use super::{Books, Phase, Run, State, ratio, read, write};
use crate::error::Error;
use crate::kernels::Number;
use crate::step::route;
use crate::step::share::Sharing;
use crate::train::lock;
use crate::train::optimizer::Optimizer;
use crate::train::penalty;
use crate::train::stretch::Cursor;
use crate::train::sums::StridedSum;
use std::ops::Range;
use std::sync::atomic::Ordering;

impl<T: Number> Run<'_, '_, '_, T> {
    /// The last worker out of a phase decides on the next: what it did it as goes in, what is next comes out.
    pub(super) fn advance(&self, phase: Phase, state: State<T>) -> State<T> {
        if let (Some(sharing), Phase::Samples(stage)) = (&self.sharing, phase) {
            return self.after_stage(sharing, stage, state);
        }
        match phase {
            Phase::Samples(stretch) if stretch == self.middle() && self.exchange.is_some() => self.after_forward(state),
            Phase::Samples(stretch) if stretch + 1 < self.stretches => self.couple(stretch, state),
            Phase::Samples(_) if self.exchange.is_some() => self.after_backward(state),
            Phase::Samples(_) => self.after_samples(state),
            Phase::Asking => self.after_asking(state),
            Phase::Returning if self.stretches > 1 => self.couple(self.middle(), state),
            Phase::Returning => self.after_backward(state),
            Phase::Weights => self.after_weights(state),
            Phase::Turning => self.after_turning(state),
            _ => self.after_amending(phase, state),
        }
    }

    /// The stretch that has the loss.
    fn middle(&self) -> usize {
        self.stretches / 2
    }

    /// All samples have come to where they couple: statistics of the batch, and on.
    fn couple(&self, stretch: usize, state: State<T>) -> State<T> {
        self.slice_claims.reset();
        if self.stop.load(Ordering::Relaxed) {
            return State { phase: None, ..state };
        }
        let used = self.plan.slices(state.group_rows);
        route::couple(self.network, &self.buffers.slices.read(), used, stretch, state.rows);
        State { phase: Some(Phase::Samples(stretch + 1)), ..state }
    }

    /// A stage of the batch's only slice is through: what it wrote goes back to the slice, and what the next one writes is lent.
    fn after_stage(&self, sharing: &Sharing<T>, stage: usize, state: State<T>) -> State<T> {
        let mut slice = self.buffers.slices.write(0);
        sharing.leave(&mut slice, stage);
        if stage + 1 == self.stretches {
            drop(slice);
            return self.after_samples(state);
        }
        self.slice_claims.reset();
        if self.stop.load(Ordering::Relaxed) {
            return State { phase: None, ..state };
        }
        sharing.enter(&mut slice, stage + 1);
        State { phase: Some(Phase::Samples(stage + 1)), ..state }
    }

    /// All samples are through: losses, divergence, and whether to go on.
    fn after_samples(&self, state: State<T>) -> State<T> {
        self.slice_claims.reset();
        let mut books = lock(&self.books);
        if self.stop.load(Ordering::Relaxed) {
            return State { phase: None, ..state };
        }
        let slices = self.buffers.slices.read();
        let (order, mut first) = (self.order(), state.batch + state.group);
        for i in 0..self.plan.slices(state.group_rows) {
            let losses = slices.get(i).losses();
            match self.options.weights {
                None => books.batch_loss.extend(losses),
                Some(weights) => {
                    let row = |i: usize| if order.rows.is_empty() { first + i } else { order.rows[first + i] as usize };
                    let weighted = losses.iter().enumerate().map(|(i, &loss)| weights[row(i)] * loss.to_f64());
                    weighted.for_each(|loss| books.batch_loss.add(loss));
                }
            }
            first += losses.len();
        }
        if state.group + state.group_rows < state.rows {
            return State { phase: Some(Phase::Weights), ..state };
        }
        let mean = ratio(books.batch_loss.total(), state.weight);
        books.batch_loss = StridedSum::new();
        drop((slices, order));
        match self.finite(&mut books, mean, state) {
            Some(loss) => self.enter(&mut books, loss, state),
            None => State { phase: None, ..state },
        }
    }

    /// A batch's loss from its samples' mean; ends training where it is not finite.
    fn finite(&self, books: &mut Books, mean: f64, state: State<T>) -> Option<f64> {
        let loss = mean + self.penalty(state);
        if loss.is_finite() || self.scikit.is_some() {
            return Some(loss);
        }
        let slices = self.buffers.slices.read();
        let bad = |l: &usize| !(0..self.plan.slices(state.group_rows)).all(|i| slices.get(i).is_finite(*l));
        let layer = (0..self.network.layers.len()).find(bad).unwrap_or(self.network.layers.len() - 1) + 1;
        books.outcome = Err(Error::Divergence { step: books.progress.steps + 1, layer });
        None
    }

    /// The optimizer at the next step's rate, which is Muon's where that follows it.
    fn optimizer(&self, books: &Books) -> Optimizer {
        match self.options.stretch.rate(books.progress.steps - books.steps_before) {
            Some(rate) if self.options.muon.is_some() => {
                self.amendments.set_rate(rate);
                self.options.optimizer
            }
            Some(rate) => self.options.optimizer.at(rate),
            None => books.turned.map_or(self.options.optimizer, |rate| self.options.optimizer.at(rate)),
        }
    }

    /// What the penalty adds to the mean loss of the batch.
    fn penalty(&self, state: State<T>) -> f64 {
        let penalty = match &self.shared_penalty {
            Some(shared) => shared.settle(self.network),
            None => penalty::penalty(self.network, self.penalty),
        };
        if self.scikit.is_some() { ratio(penalty, state.weight) } else { penalty }
    }

    /// Enters a batch's loss; its update is next.
    pub(super) fn enter(&self, books: &mut Books, loss: f64, state: State<T>) -> State<T> {
        // In scikit-learn a batch counts by its rows, whatever their weights.
        let counts = if self.scikit.is_some() { state.rows as f64 } else { state.weight };
        books.cursor.epoch_loss += loss * counts;
        books.cursor.epoch_weight += counts;
        books.cursor.loss = loss;
        let optimizer = self.optimizer(books);
        let now = self.updates && !self.amendments.splits();
        let rule = now.then(|| optimizer.step(&mut books.progress));
        // An order that the host draws is read anew.
        let whole = !self.turns && state.rows == self.n_rows() && self.plan.group_rows >= state.rows;
        self.gathered.store(whole, Ordering::Relaxed);
        State { rule, keep: optimizer.keep(), phase: Some(Phase::Weights), ..state }
    }

    /// The group's logits are there: the next group's, or the host's turn.
    fn after_forward(&self, state: State<T>) -> State<T> {
        self.slice_claims.reset();
        if self.stop.load(Ordering::Relaxed) {
            return State { phase: None, ..state };
        }
        let mut exchange = write(self.exchange.as_ref().expect("the host's loss"));
        if state.group == 0 {
            let order = self.order();
            let places = state.batch..state.batch + state.rows;
            exchange.begin(state.batch, if order.rows.is_empty() { &[] } else { &order.rows[places] });
        }
        let slices = self.buffers.slices.read();
        for i in 0..self.plan.slices(state.group_rows) {
            exchange.append(slices.get(i).result(self.network.layers.len() - 1));
        }
        let group = state.group + state.group_rows;
        if group < state.rows {
            return self.begin_group(State { group, ..state }, Phase::Samples(0));
        }
        State { phase: Some(Phase::Asking), ..state }
    }

    /// The host has answered: backward, from the first group on.
    fn after_asking(&self, state: State<T>) -> State<T> {
        if self.stop.load(Ordering::Relaxed) {
            return State { phase: None, ..state };
        }
        let mean = {
            let (exchange, order) = (read(self.exchange.as_ref().expect("the host's loss")), self.order());
            let row =
                |i: usize| if order.rows.is_empty() { state.batch + i } else { order.rows[state.batch + i] as usize };
            exchange.mean(|i| self.options.weights.map_or(1.0, |weights| weights[row(i)]), state.weight)
        };
        let mut books = lock(&self.books);
        let Some(loss) = self.finite(&mut books, mean, state) else { return State { phase: None, ..state } };
        books.own_loss = loss;
        self.begin_group(State { group: 0, ..state }, Phase::Returning)
    }

    /// The group's dZ are there.
    fn after_backward(&self, state: State<T>) -> State<T> {
        self.slice_claims.reset();
        if self.stop.load(Ordering::Relaxed) {
            return State { phase: None, ..state };
        }
        if state.group + state.group_rows < state.rows {
            return State { phase: Some(Phase::Weights), ..state };
        }
        let mut books = lock(&self.books);
        let loss = books.own_loss;
        self.enter(&mut books, loss, state)
    }

    /// A group's gradient is in: the next group, or what comes after the last.
    fn after_weights(&self, state: State<T>) -> State<T> {
        self.job_claims.reset();
        let group = state.group + state.group_rows;
        if group < state.rows {
            let phase = if self.exchange.is_some() { Phase::Returning } else { Phase::Samples(0) };
            return self.begin_group(State { group, ..state }, phase);
        }
        self.go_on(state, Phase::Weights)
    }

    /// A phase beside samples and weights is through.
    fn after_amending(&self, phase: Phase, state: State<T>) -> State<T> {
        self.job_claims.reset();
        if let Err(layer) = self.amendments.finish(self.network, phase) {
            let mut books = lock(&self.books);
            books.outcome = Err(Error::Divergence { step: books.progress.steps + 1, layer });
            return State { phase: None, ..state };
        }
        self.go_on(state, phase)
    }

    /// The next phase of a step whose gradient is in, or the next batch or epoch.
    fn go_on(&self, state: State<T>, done: Phase) -> State<T> {
        if let Some(phase) = self.amendments.following(done) {
            let mut rule = state.rule;
            if phase == Phase::Update {
                let mut books = lock(&self.books);
                rule = Some(self.optimizer(&books).step(&mut books.progress));
            }
            return State { rule, phase: Some(phase), ..state };
        }
        // The step is done: what it saw of the batch counts.
        if self.updates {
            route::run_on(self.network, state.rows);
        }
        let batch = state.batch + state.rows;
        if batch < self.n_rows() {
            return if self.ends() { self.finish(batch, state) } else { self.begin_batch(state.epoch, batch) };
        }
        let mut books = lock(&self.books);
        // Where no row counts, what the last batch had: the penalties.
        let Cursor { epoch_loss, epoch_weight, loss, .. } = books.cursor;
        let loss = if epoch_weight > 0.0 { epoch_loss / epoch_weight } else { loss };
        (books.cursor.epoch_loss, books.cursor.epoch_weight) = (0.0, 0.0);
        books.losses.push(loss);
        books.progress.epochs += u64::from(self.updates);
        self.amendments.end_epoch();
        let every = self.options.report_every;
        if every > 0 && state.epoch.is_multiple_of(every) {
            books.report = Some((state.epoch, loss));
        }
        drop(books);
        if self.turns {
            return State { phase: Some(Phase::Turning), ..state };
        }
        if state.epoch + 1 == self.options.epochs || self.ends() {
            return self.finish(0, state);
        }
        self.begin_epoch(state.epoch + 1, 0)
    }

    /// The host has drawn an order, or not.
    fn after_turning(&self, state: State<T>) -> State<T> {
        let goes_on = lock(&self.books).turned.is_some() && !self.stop.load(Ordering::Relaxed);
        if goes_on { self.begin_batch(state.epoch + 1, 0) } else { self.finish(0, state) }
    }

    /// Whether the stretch ends with the step that was made.
    fn ends(&self) -> bool {
        let stretch = &self.options.stretch;
        if stretch.steps.is_none() && stretch.deadline.is_none() {
            return false;
        }
        let books = lock(&self.books);
        stretch.ends(books.progress.steps - books.steps_before)
    }

    /// Nothing is left to do; the next batch would have begun at `row`.
    fn finish(&self, row: usize, state: State<T>) -> State<T> {
        lock(&self.books).cursor.row = row;
        State { phase: None, ..state }
    }

    pub(super) fn begin_epoch(&self, epoch: usize, row: usize) -> State<T> {
        let mut order = self.order.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !order.rows.is_empty() {
            let shuffles = self.options.shuffle && self.options.batch_size < self.n_rows();
            order.draw(self.options.seed, lock(&self.books).progress.epochs, self.options.rows, shuffles);
        }
        drop(order);
        self.begin_batch(epoch, row)
    }

    fn begin_batch(&self, epoch: usize, batch: usize) -> State<T> {
        let rows = self.options.batch_size.min(self.n_rows() - batch);
        let step = lock(&self.books).progress.steps + 1;
        let weight = self.weight(batch..batch + rows);
        let (group, group_rows, rule, keep) = (0, 0, None, T::ONE);
        let state = State { epoch, batch, rows, step, weight, group, group_rows, rule, keep, phase: None };
        self.begin_group(state, Phase::Samples(0))
    }

    /// What these places in the order count together.
    fn weight(&self, places: Range<usize>) -> f64 {
        let Some(weights) = self.options.weights else { return places.len() as f64 };
        let order = self.order();
        let mut sum = StridedSum::new();
        if order.rows.is_empty() {
            weights[places].iter().for_each(|&weight| sum.add(weight));
        } else {
            order.rows[places].iter().for_each(|&row| sum.add(weights[row as usize]));
        }
        sum.total()
    }

    fn begin_group(&self, state: State<T>, phase: Phase) -> State<T> {
        let group_rows = self.plan.group_rows.min(state.rows - state.group);
        State { group_rows, phase: Some(phase), ..state }
    }
}
