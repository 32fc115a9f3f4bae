//! The lifecycle on a virtual clock: courses, groups, times, certificates, and random interleavings of all of them.

mod certificates;
mod desk;
mod gathering;
mod groups;
mod interleavings;
mod lifecycle;
