use std::path::PathBuf;

/// What can go wrong in this crate. Every message says what happened and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model's files.
    #[error(transparent)]
    Hub(#[from] ebb_hub::Error),
    /// A model's network.
    #[error(transparent)]
    Net(#[from] ebb_net::Error),
    /// The weight space.
    #[error(transparent)]
    Space(#[from] ebb_space::Error),
    /// Texts and questions.
    #[error(transparent)]
    Text(#[from] ebb_text::Error),
    /// Nothing at this place is a model.
    #[error(
        "`{path}` is no model: it takes a folder with `config.json` and safetensors, or a `.gguf` \
         file",
        path = path.display()
    )]
    NoModel {
        /// What was asked for.
        path: PathBuf,
    },
    /// What was asked for cannot be done with this model.
    #[error("{0}")]
    Request(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
