//! tidegate-provider-sim
