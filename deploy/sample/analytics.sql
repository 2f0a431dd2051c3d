-- Database analytics: copies for reports. Some of them carry more than their makers thought of.
REVOKE ALL ON DATABASE analytics FROM PUBLIC;
GRANT CONNECT ON DATABASE analytics TO analysts, finance_controlling, sales_leads, engineering, dba, svc_backup, accessos_reader;
GRANT CREATE ON DATABASE analytics TO svc_etl;

CREATE SCHEMA raw AUTHORIZATION analytics_app;
CREATE SCHEMA mart AUTHORIZATION analytics_app;
GRANT USAGE ON SCHEMA mart TO PUBLIC;
GRANT USAGE, CREATE ON SCHEMA raw TO svc_etl;

SET LOCAL ROLE analytics_app;
CREATE TABLE raw.orders AS SELECT n AS id, n * 990 AS amount FROM generate_series(1, 5) n;
CREATE TABLE raw.customers AS SELECT n AS id, 'customer ' || n AS name FROM generate_series(1, 5) n;
CREATE TABLE raw.headcount AS SELECT n AS employee_id, 41000 + n * 1730 AS amount FROM generate_series(1, 5) n;
CREATE TABLE raw.web_visits AS SELECT n AS id, '/product/' || n AS path FROM generate_series(1, 5) n;
CREATE TABLE raw.tickets AS SELECT n AS id, 'ticket ' || n AS subject FROM generate_series(1, 5) n;
CREATE TABLE mart.revenue_by_month AS SELECT n AS month, n * 100000 AS revenue FROM generate_series(1, 6) n;
CREATE TABLE mart.margin_by_product AS SELECT 'NR-' || n * 10 AS sku, n * 0.11 AS margin FROM generate_series(1, 3) n;
CREATE TABLE mart.wage_bands AS SELECT n AS band, 40000 + n * 9000 AS median FROM generate_series(1, 5) n;
CREATE TABLE mart.funnel AS SELECT n AS stage, 1000 / n AS leads FROM generate_series(1, 4) n;
CREATE TABLE mart.uptime AS SELECT n AS robot, 0.97 + n * 0.005 AS uptime FROM generate_series(1, 4) n;
GRANT SELECT, INSERT, TRUNCATE ON ALL TABLES IN SCHEMA raw TO svc_etl;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mart TO svc_etl;
GRANT SELECT ON mart.revenue_by_month, mart.margin_by_product TO finance_controlling, sales_leads;
GRANT SELECT ON mart.wage_bands TO hr_managers, finance_controlling;
GRANT SELECT ON mart.uptime TO PUBLIC;
GRANT SELECT ON mart.funnel TO sales_leads;
RESET ROLE;
