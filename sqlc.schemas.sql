-- For sqlc alone: the schemas that pg.Migrate makes before it runs their migrations.
CREATE SCHEMA a3;
CREATE SCHEMA audit;
CREATE SCHEMA iam;
CREATE SCHEMA integrations;
CREATE SCHEMA discovery;
CREATE SCHEMA registry;
