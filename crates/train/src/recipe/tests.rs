//! Recipes: defaults, faults, and the ones that are shipped.
