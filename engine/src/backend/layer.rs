//! Norms, activations and experts as a model describes them to a backend.

/// A norm over the last axis.
pub enum Norm<V> {
    /// `x / sqrt(mean(x^2) + eps) * weight`
    Rms { weight: V, eps: f32 },
    /// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`
    Layer { weight: V, bias: V, eps: f32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`
    Silu,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
    GeluTanh,
}

/// How rows are sent to experts: the `top_k` of highest probability, which is the softmax over the logits of all. Of equal ones the first
/// comes before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    pub top_k: usize,
    /// Whether the weights of the chosen ones are divided by their sum.
    pub renormalize: bool,
}

/// The experts of one layer, each `down(f(gate(x)) * up(x))`; `M` holds the matrices of all.
pub struct Experts<M> {
    pub routing: Routing,
    pub activation: Activation,
    /// Per expert: gate above up, `[2 * intermediate, hidden]`.
    pub gate_up: M,
    /// Per expert: `[hidden, intermediate]`.
    pub down: M,
}
