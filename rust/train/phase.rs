//! The phases of a step.

/// What all workers do between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Phase {
    /// Slices of the samples are taken over a stretch of their way (`step/route.rs`): of gather, forward, loss, backward. Or the only
    /// slice is, over a stage of it (`step/share.rs`).
    Samples(usize),
    /// The host's own loss: the caller's thread asks for the batch's loss and gradient.
    Asking,
    /// Slices go backward from the host's gradient, until samples couple.
    Returning,
    /// Parts of the weights get their gradient and, with the batch's last group, their update, unless that has to wait.
    Weights,
    /// The whole gradient is measured.
    Norm,
    /// The gradients of weight matrices become Muon's directions.
    Directions,
    /// Parts of the weights get the update that had to wait.
    Update,
    /// The weights of each output are measured.
    Lengths,
    /// Parts of the weights are shortened.
    Constraint,
    /// The epoch is done, and the caller's thread asks the host for the next one's order.
    Turning,
}
