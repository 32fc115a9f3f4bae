//! What only a database that many processes use can get wrong: rights, steps of the schema, lost connections, other
//! processes that are killed.

#[path = "postgres/children.rs"]
mod children;
#[path = "postgres/connections.rs"]
mod connections;
#[path = "postgres/proxy.rs"]
mod proxy;
#[path = "postgres/schema.rs"]
mod schema;
#[path = "postgres/secrets.rs"]
mod secrets;
