-- The role that reads the source, and can do nothing else. For psql, as the owner of the six tables with the
-- right to make roles, in the source's database; safe to repeat. The password comes from the environment.
-- A run takes one connection, and each sensor one: for more than 18 runs at once raise the limit.
\set ON_ERROR_STOP on
\getenv reader_password FRAUD_ASSETS_READER_PASSWORD

SELECT 'CREATE ROLE fraud_assets_reader'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fraud_assets_reader') \gexec
ALTER ROLE fraud_assets_reader WITH
    LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT 20 PASSWORD :'reader_password';
ALTER ROLE fraud_assets_reader SET default_transaction_read_only = on;
ALTER ROLE fraud_assets_reader SET statement_timeout = '10min';
ALTER ROLE fraud_assets_reader SET lock_timeout = '10s';

GRANT CONNECT ON DATABASE :"DBNAME" TO fraud_assets_reader;
GRANT USAGE ON SCHEMA public TO fraud_assets_reader;
GRANT SELECT ON tenant, site, guard, shift, attendance_event, outcome TO fraud_assets_reader;
