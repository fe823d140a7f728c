//! tidegate-ledger
