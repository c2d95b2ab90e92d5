-- Three databases, each with an owner of its own who can enter no other. For psql as superuser, in an empty
-- server: the passwords come from the environment.
\set ON_ERROR_STOP on
\getenv ledger_password FRAUD_ASSETS_LEDGER_PASSWORD
\getenv dagster_password FRAUD_ASSETS_DAGSTER_PASSWORD
\getenv mlflow_password FRAUD_ASSETS_MLFLOW_PASSWORD

CREATE ROLE fraud_assets_ledger LOGIN PASSWORD :'ledger_password';
CREATE ROLE fraud_assets_dagster LOGIN PASSWORD :'dagster_password';
CREATE ROLE fraud_assets_mlflow LOGIN PASSWORD :'mlflow_password';

CREATE DATABASE fraud_assets_ledger OWNER fraud_assets_ledger;
CREATE DATABASE fraud_assets_dagster OWNER fraud_assets_dagster;
CREATE DATABASE fraud_assets_mlflow OWNER fraud_assets_mlflow;

REVOKE ALL ON DATABASE fraud_assets_ledger, fraud_assets_dagster, fraud_assets_mlflow FROM PUBLIC;
REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;
