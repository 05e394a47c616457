/// What can go wrong in this crate. Every message says what happened and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two tensors of a layout carry the same path.
    #[error("the path `{0}` occurs twice in the layout: give every tensor its own path")]
    DuplicatePath(String),
    /// The element count of a layout does not fit in memory.
    #[error("the shape of `{0}` has more elements than can be addressed: check the shape")]
    ShapeOverflow(String),
    /// A buffer does not have the length its description asks for.
    #[error("{what} has {found} values where {expected} are needed: check the shapes")]
    Length {
        /// What was too long or too short.
        what: &'static str,
        /// The length needed.
        expected: usize,
        /// The length given.
        found: usize,
    },
    /// A text is not an example id.
    #[error(
        "`{0}` is not an example id: write 32 hex digits, the occurrence and the view, as in \
         `00112233445566778899aabbccddeeff-0-0`"
    )]
    BadExampleId(String),
    /// Two numbers mean different things.
    #[error(
        "the numbers have different {what} (`{left}` and `{right}`) and cannot be compared: \
         measure both in the same way"
    )]
    NotComparable {
        /// What differs.
        what: &'static str,
        /// Of the first number.
        left: String,
        /// Of the second number.
        right: String,
    },
    /// A statistic needs more values.
    #[error("{found} values are too few: this statistic needs at least {needed}")]
    SampleTooSmall {
        /// Values needed.
        needed: usize,
        /// Values given.
        found: usize,
    },
    /// A sample holds NaN or an infinity.
    #[error("value {index} of the sample is {value}: find where it diverged first")]
    SampleNotFinite {
        /// Its place in the sample.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A sample in which nothing varies, or with one class only.
    #[error("nothing varies in the sample, so this statistic is undefined for it")]
    NoVariation,
    /// A probability outside its range.
    #[error("{0} is not a probability in the range this statistic needs")]
    BadLevel(f64),
    /// Outputs that are no probabilities.
    #[error(
        "row {row} of {what} is no distribution (its values sum to {sum}): give the softmax of the \
         logits"
    )]
    BadDistribution {
        /// Whose outputs.
        what: &'static str,
        /// The first such row.
        row: usize,
        /// The sum of its values; not a number where one of them is negative or not finite.
        sum: f64,
    },
    /// Not a proportion.
    #[error("{k} of {n} is not a proportion: the part must not exceed a whole of at least one")]
    BadProportion {
        /// The part.
        k: usize,
        /// The whole.
        n: usize,
    },
    /// An index points outside its list.
    #[error("{what} points at {index} of {len}: build rows and their lists together")]
    BadIndex {
        /// The list of indices.
        what: &'static str,
        /// The greatest index in it.
        index: usize,
        /// The length of the list pointed into.
        len: usize,
    },
    /// Thresholds that are not in order.
    #[error(
        "the lower threshold of column {column} is not below the upper one: give both as numbers, the lower first"
    )]
    BadThresholds {
        /// The first such column.
        column: usize,
    },
    /// A generator's parameter is out of range.
    #[error("{generator} is no divergence: it needs {range}")]
    BadGenerator {
        /// The generator.
        generator: String,
        /// Its range.
        range: &'static str,
    },
    /// A class set without a class.
    #[error("class set {0} allows no class: a row needs at least one")]
    EmptyClassSet(usize),
    /// A label that the row's class set excludes.
    #[error(
        "{term}: the label {label} of row {row} is not among the row's allowed classes: check the \
         row's class set and the relabelling of its experience"
    )]
    LabelOutsideClassSet {
        /// The term.
        term: String,
        /// The row.
        row: usize,
        /// Its label.
        label: u32,
    },
    /// A loss that is NaN or infinite.
    #[error(
        "{term}: the loss of row {row} is not finite: lower the learning rate, clip gradients, or \
         look for NaN in the input of that row"
    )]
    NotFinite {
        /// The term.
        term: String,
        /// The first such row.
        row: usize,
    },
    /// A term whose choices do not fit together.
    #[error("{term}: {why}")]
    BadTerm {
        /// The term.
        term: String,
        /// What does not fit, and what would.
        why: &'static str,
    },
    /// An estimator that an objective over the rows of a pass cannot evaluate.
    #[error(
        "{term}: the {estimator} estimator needs {needs}, which the rows of a pass do not carry: \
         use exact, reference-sampled or local-quadratic"
    )]
    EstimatorUnavailable {
        /// The term.
        term: String,
        /// The estimator.
        estimator: &'static str,
        /// What it would need.
        needs: &'static str,
    },
    /// A term needs something that was not given.
    #[error(
        "{term} needs {what}, which this pass was not given: store or compute it, or drop the term"
    )]
    MissingInput {
        /// The term.
        term: String,
        /// What is missing.
        what: &'static str,
    },
    /// Masks that leave a row without a class.
    #[error("{term}: the masks leave row {row} without an allowed class: let them overlap")]
    NoClassLeft {
        /// The term.
        term: String,
        /// The row.
        row: usize,
    },
    /// Two quadratics that cannot be added.
    #[error(
        "quadratics of different kinds, layers or sets cannot be added: keep them as separate \
         penalties"
    )]
    QuadraticKinds,
    /// Task vectors, or a rule for them, that make no merged model.
    #[error("this cannot be merged: {0}")]
    BadMerge(String),
    /// A path that a layout does not have.
    #[error("there is no tensor called `{0}` in the layout: compare it with the layout's paths")]
    NoSuchTensor(String),
    /// A stored basis is damaged.
    #[error(
        "vectors {first} and {second} of the stored basis are not orthonormal: the file is damaged, \
         or holds something else"
    )]
    NotOrthonormal {
        /// A vector.
        first: usize,
        /// Another, or the same.
        second: usize,
    },
}

/// The result of a fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
