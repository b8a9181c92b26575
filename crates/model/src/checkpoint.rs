//! The checkpoint folder: writing it so that a killed process loses nothing, and finding it again.
