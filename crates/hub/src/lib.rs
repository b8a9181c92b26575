//! A name on Hugging Face's hub becomes files in its cache, which Python's tools share.
//!
//! The layout is that of `huggingface_hub` 2.4: what Python downloaded is found here, and what is downloaded
//! here Python finds.
//!
//! ```text
//! CACHE/models--ORG--NAME/blobs/ETAG                a file, named by its digest
//!                        /blobs/ETAG.incomplete     the beginning of one, from where a download goes on
//!                        /snapshots/COMMIT/PATH     a link to a blob; without links, the file itself
//!                        /refs/REVISION             the commit that a branch or tag meant last
//!                        /.no_exist/COMMIT/PATH     a file that this commit does not have
//! CACHE/.locks/models--ORG--NAME/ETAG.lock          held while a blob is downloaded
//! ```
//!
//! Nothing that the hub says is trusted: paths, lengths, digests and addresses are checked before they are
//! used. The token goes to the hub itself and to no other host.

mod address;
mod blob;
mod cache;
mod client;
mod digest;
mod error;
mod fetch;
mod id;
mod listing;
mod lock;
mod scan;
mod settings;

pub use cache::Cache;
pub use client::Hub;
pub use error::{Error, Result};
pub use fetch::{Event, Observer, Wanted};
pub use id::Id;
pub use listing::{Listing, RemoteFile};
pub use scan::{CachedFile, Repository, Revision};
pub use settings::{Settings, Token};
