"""Everything that runs the product on one machine: embedded Kafka and Postgres, the development relay."""
