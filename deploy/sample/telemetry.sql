-- Database telemetry: what the robots report. PUBLIC kept PostgreSQL's defaults here, CONNECT and TEMPORARY.
GRANT CONNECT ON DATABASE telemetry TO engineering, accessos_reader;

CREATE SCHEMA fleet AUTHORIZATION telemetry_app;
GRANT USAGE ON SCHEMA fleet TO engineering, contractors_fieldtech, svc_grafana;
GRANT CREATE ON SCHEMA public TO PUBLIC;

SET LOCAL ROLE telemetry_app;
CREATE TABLE fleet.robots AS SELECT 'R-' || lpad(n::text, 4, '0') AS serial, n AS site FROM generate_series(1, 6) n;
CREATE TABLE fleet.positions AS SELECT 'R-0001' AS serial, n AS x, n * 2 AS y FROM generate_series(1, 6) n;
CREATE TABLE fleet.battery AS SELECT 'R-0001' AS serial, 100 - n AS charge FROM generate_series(1, 6) n;
CREATE TABLE fleet.faults AS SELECT n AS id, 'wheel slip' AS fault FROM generate_series(1, 3) n;
CREATE TABLE fleet.firmware AS SELECT '4.' || n AS version, n = 2 AS released FROM generate_series(1, 3) n;
CREATE TABLE fleet.commands AS SELECT n AS id, 'dock' AS command FROM generate_series(1, 3) n;
CREATE TABLE fleet.cameras AS SELECT n AS id, 'aisle ' || n AS view FROM generate_series(1, 4) n;
GRANT SELECT ON ALL TABLES IN SCHEMA fleet TO engineering, svc_grafana;
REVOKE SELECT ON fleet.cameras FROM svc_grafana;
GRANT INSERT ON fleet.commands, fleet.firmware TO eng_oncall;
GRANT SELECT ON fleet.robots, fleet.battery, fleet.faults TO contractors_fieldtech;
GRANT UPDATE ON fleet.firmware TO ada_lindqvist WITH GRANT OPTION;
RESET ROLE;
