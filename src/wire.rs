//! Wire types to domain types and back, field by field, with every check that the spec asks of a request.
