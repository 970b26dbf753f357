//! Signal frames: what is pushed comes back.
