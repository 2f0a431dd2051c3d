-- +goose Up
-- What a set said last, whole: a serialized a3os.registry.v1.ReportRequest without its checkpoint. component_reports, which said less,
-- stays for the release before.
ALTER TABLE registry.set_reports ADD COLUMN body bytea;

-- What sets said before: one report a minute for two hours, one in ten minutes for a day. A rollout compares a tenant with itself.
CREATE TABLE registry.report_points (
    tenant_id   uuid        NOT NULL REFERENCES registry.tenants,
    minute      timestamptz NOT NULL,
    reported_at timestamptz NOT NULL,
    body        bytea       NOT NULL,
    PRIMARY KEY (tenant_id, minute)
);
GRANT SELECT, INSERT, DELETE ON registry.report_points TO role_registry;
