//! tidegate-edge
