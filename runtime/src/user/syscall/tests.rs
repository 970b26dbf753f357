//! System calls against guest memory, without an engine.
