-- Database northwind: what the company runs on.
REVOKE ALL ON DATABASE northwind FROM PUBLIC;
GRANT CONNECT ON DATABASE northwind TO everyone, contractors, dba, svc_erp, svc_webshop, svc_backup, svc_badges, svc_grafana, svc_etl, accessos_reader;
GRANT TEMPORARY ON DATABASE northwind TO engineering, analysts;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE SCHEMA hr AUTHORIZATION hr_app;
CREATE SCHEMA finance AUTHORIZATION finance_app;
CREATE SCHEMA sales AUTHORIZATION sales_app;
CREATE SCHEMA ops AUTHORIZATION ops_app;
CREATE SCHEMA warehouse AUTHORIZATION warehouse_app;
GRANT USAGE ON SCHEMA hr TO everyone, payroll_read, hr_staff, svc_badges;
GRANT USAGE ON SCHEMA finance TO finance_staff, svc_webshop;
GRANT USAGE ON SCHEMA sales TO PUBLIC;
GRANT USAGE ON SCHEMA ops TO PUBLIC;
GRANT USAGE ON SCHEMA warehouse TO ops_staff, svc_webshop;
GRANT USAGE, CREATE ON SCHEMA ops TO eng_oncall;

-- hr
SET LOCAL ROLE hr_app;
CREATE TABLE hr.departments (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO hr.departments VALUES (1, 'Leadership'), (2, 'People'), (3, 'Finance'), (4, 'Sales'), (5, 'Operations'), (6, 'Engineering'), (7, 'IT');
CREATE TABLE hr.employees (id int PRIMARY KEY, login text UNIQUE, full_name text NOT NULL, email text, department_id int REFERENCES hr.departments, hired_on date, home_address text, national_id text);
INSERT INTO hr.employees
SELECT n, login, initcap(replace(login, '_', ' ')), replace(login, '_', '.') || '@northwind-robotics.example', dept, date '2017-02-01' + n * 97, n || ' Harbour Road', 'NR' || 100000 + n * 7919
FROM (VALUES (1, 'margaret_shaw', 1), (2, 'helen_okafor', 2), (3, 'ruth_amsel', 2), (4, 'tomas_vidal', 2), (5, 'dana_whitlock', 3), (6, 'igor_petrenko', 3),
  (7, 'mei_tanaka', 3), (8, 'sofia_brandt', 3), (9, 'luca_ferri', 4), (10, 'nadia_haddad', 4), (11, 'pierre_lemaire', 4), (12, 'grace_mbeki', 4), (13, 'john_ashworth', 4),
  (14, 'stefan_kowal', 5), (15, 'aisha_rahman', 5), (16, 'bruno_costa', 5), (17, 'yuki_mori', 5), (18, 'ada_lindqvist', 6), (19, 'omar_farouk', 6), (20, 'priya_nair', 6),
  (21, 'liam_doyle', 6), (22, 'chen_wei', 6), (23, 'elena_rossi', 6), (24, 'karl_jensen', 7), (25, 'fatima_zahra', 7), (26, 'viktor_hale', 7)) AS people (n, login, dept);
CREATE TABLE hr.salaries (employee_id int PRIMARY KEY REFERENCES hr.employees, amount numeric NOT NULL, currency text NOT NULL, bonus_percent numeric, valid_from date);
INSERT INTO hr.salaries SELECT id, 41000 + id * 1730 % 60000, 'EUR', id % 5 * 2.5, date '2026-01-01' FROM hr.employees;
CREATE TABLE hr.bank_accounts (employee_id int PRIMARY KEY REFERENCES hr.employees, iban text NOT NULL);
INSERT INTO hr.bank_accounts SELECT id, 'XX00 0000 0000 ' || lpad(id::text, 4, '0') FROM hr.employees;
CREATE TABLE hr.contracts (id int PRIMARY KEY, employee_id int REFERENCES hr.employees, kind text, signed_on date);
INSERT INTO hr.contracts SELECT id, id, CASE WHEN id % 6 = 0 THEN 'part time' ELSE 'full time' END, hired_on FROM hr.employees;
CREATE TABLE hr.reviews (id int PRIMARY KEY, employee_id int REFERENCES hr.employees, year int, grade int, remarks text);
INSERT INTO hr.reviews SELECT id, id, 2025, 2 + id % 4, 'as agreed' FROM hr.employees WHERE id % 2 = 0;
CREATE TABLE hr.sick_days (employee_id int REFERENCES hr.employees, day date);
INSERT INTO hr.sick_days SELECT id, date '2026-03-01' + id FROM hr.employees WHERE id % 5 = 0;
CREATE TABLE hr.leave_requests (id int PRIMARY KEY, employee_id int REFERENCES hr.employees, starts_on date, days int);
INSERT INTO hr.leave_requests SELECT id, id, date '2026-07-01' + id, 10 FROM hr.employees WHERE id % 3 = 0;
CREATE TABLE hr.applicants (id int PRIMARY KEY, full_name text, position text, stage text);
INSERT INTO hr.applicants VALUES (1, 'Noor Bakker', 'Robotics engineer', 'interview'), (2, 'Ivo Santos', 'Controller', 'offer'), (3, 'Lena Graf', 'Field technician', 'applied');
CREATE TABLE hr.badges (badge text PRIMARY KEY, employee_id int REFERENCES hr.employees, door_group text);
INSERT INTO hr.badges SELECT 'B' || lpad(id::text, 4, '0'), id, CASE WHEN department_id = 5 THEN 'warehouse' ELSE 'office' END FROM hr.employees;
CREATE VIEW hr.phone_book AS SELECT full_name, email, department_id FROM hr.employees;
GRANT SELECT ON hr.departments, hr.phone_book TO PUBLIC;
GRANT SELECT (id, login, full_name, email, department_id) ON hr.employees TO everyone;
GRANT SELECT, INSERT, UPDATE ON hr.employees, hr.contracts, hr.reviews, hr.sick_days, hr.leave_requests, hr.applicants TO hr_staff;
GRANT DELETE ON hr.applicants, hr.reviews TO hr_managers;
GRANT SELECT ON hr.salaries, hr.bank_accounts TO payroll_read;
GRANT INSERT, UPDATE ON hr.salaries, hr.bank_accounts TO payroll_write;
GRANT SELECT (employee_id, bonus_percent) ON hr.salaries TO sales_leads;
GRANT SELECT, UPDATE (door_group) ON hr.badges TO svc_badges;
RESET ROLE;

-- finance
SET LOCAL ROLE finance_app;
CREATE TABLE finance.accounts (code text PRIMARY KEY, name text NOT NULL);
INSERT INTO finance.accounts VALUES ('1000', 'Bank'), ('1400', 'Receivables'), ('3300', 'Payables'), ('4120', 'Wages'), ('8400', 'Revenue');
CREATE TABLE finance.journals (id int PRIMARY KEY, booked_on date, account text REFERENCES finance.accounts, amount numeric);
INSERT INTO finance.journals SELECT n, date '2026-01-01' + n, (ARRAY['1000', '1400', '3300', '4120', '8400'])[1 + n % 5], n * 113.5 FROM generate_series(1, 20) n;
CREATE TABLE finance.invoices (id int PRIMARY KEY, customer_id int, amount numeric, due_on date, paid boolean);
INSERT INTO finance.invoices SELECT n, 1 + n % 6, n * 990, date '2026-02-01' + n * 3, n % 4 <> 0 FROM generate_series(1, 12) n;
CREATE TABLE finance.payments (id int PRIMARY KEY, invoice_id int REFERENCES finance.invoices, paid_on date);
INSERT INTO finance.payments SELECT id, id, due_on - 2 FROM finance.invoices WHERE paid;
CREATE TABLE finance.vendors (id int PRIMARY KEY, name text, iban text);
INSERT INTO finance.vendors VALUES (1, 'Ledgerworks', 'XX11'), (2, 'Bearing & Co', 'XX12'), (3, 'Cell Power', 'XX13');
CREATE TABLE finance.bills (id int PRIMARY KEY, vendor_id int REFERENCES finance.vendors, amount numeric);
INSERT INTO finance.bills VALUES (1, 1, 18000), (2, 2, 4210.5), (3, 3, 96000);
CREATE TABLE finance.budgets (department_id int, year int, amount numeric, PRIMARY KEY (department_id, year));
INSERT INTO finance.budgets SELECT n, 2026, n * 120000 FROM generate_series(1, 7) n;
CREATE TABLE finance.forecasts (id int PRIMARY KEY, quarter text, revenue numeric);
INSERT INTO finance.forecasts VALUES (1, '2026Q3', 2100000), (2, '2026Q4', 2600000);
CREATE TABLE finance.tax_filings (year int PRIMARY KEY, filed_on date);
INSERT INTO finance.tax_filings VALUES (2024, '2025-05-30'), (2025, '2026-05-29');
CREATE TABLE finance.payroll_runs (id int PRIMARY KEY, month date, total numeric);
INSERT INTO finance.payroll_runs SELECT n, date '2026-01-01' + n * 30, 118000 + n FROM generate_series(1, 6) n;
CREATE TABLE finance.bank_statements (id int PRIMARY KEY, taken_on date, balance numeric);
INSERT INTO finance.bank_statements VALUES (1, '2026-06-30', 811000), (2, '2026-07-31', 903500);
GRANT SELECT ON ALL TABLES IN SCHEMA finance TO finance_staff;
GRANT INSERT, UPDATE ON finance.journals, finance.invoices, finance.payments, finance.bills TO finance_staff;
GRANT SELECT, INSERT, UPDATE, DELETE ON finance.budgets, finance.forecasts TO finance_controlling;
GRANT SELECT, INSERT, UPDATE ON finance.payroll_runs, finance.tax_filings TO finance_close WITH GRANT OPTION;
GRANT SELECT (id, amount, due_on, paid) ON finance.invoices TO svc_webshop;
REVOKE SELECT ON finance.bank_statements FROM finance_staff;
GRANT SELECT ON finance.bank_statements TO dana_whitlock;
RESET ROLE;

-- sales
SET LOCAL ROLE sales_app;
CREATE TABLE sales.customers (id int PRIMARY KEY, name text, country text);
INSERT INTO sales.customers VALUES (1, 'Polar Foods', 'FI'), (2, 'Marseille Port', 'FR'), (3, 'Kite Logistics', 'DE'), (4, 'Andes Retail', 'CL'), (5, 'Blue Crate', 'SE'), (6, 'Harbour One', 'NL');
CREATE TABLE sales.contacts (id int PRIMARY KEY, customer_id int REFERENCES sales.customers, full_name text, phone text);
INSERT INTO sales.contacts SELECT id, id, 'Buyer of ' || name, '+00 000 ' || id FROM sales.customers;
CREATE TABLE sales.products (sku text PRIMARY KEY, name text, list_price numeric);
INSERT INTO sales.products VALUES ('NR-10', 'Shelf runner', 28000), ('NR-20', 'Pallet mover', 61000), ('NR-90', 'Charging dock', 4900);
CREATE TABLE sales.price_list (sku text REFERENCES sales.products, country text, price numeric);
INSERT INTO sales.price_list SELECT sku, c, list_price FROM sales.products, unnest(ARRAY['DE', 'FR', 'SE']) c;
CREATE TABLE sales.opportunities (id int PRIMARY KEY, customer_id int REFERENCES sales.customers, owner text, amount numeric);
INSERT INTO sales.opportunities VALUES (1, 1, 'luca_ferri', 280000), (2, 4, 'nadia_haddad', 61000), (3, 5, 'grace_mbeki', 122000);
CREATE TABLE sales.quotes (id int PRIMARY KEY, opportunity_id int REFERENCES sales.opportunities, discount_percent numeric);
INSERT INTO sales.quotes VALUES (1, 1, 12), (2, 2, 0), (3, 3, 5);
CREATE TABLE sales.orders (id int PRIMARY KEY, customer_id int REFERENCES sales.customers, ordered_on date);
INSERT INTO sales.orders SELECT n, 1 + n % 6, date '2026-01-10' + n * 5 FROM generate_series(1, 10) n;
CREATE TABLE sales.order_lines (order_id int REFERENCES sales.orders, sku text REFERENCES sales.products, quantity int);
INSERT INTO sales.order_lines SELECT id, (ARRAY['NR-10', 'NR-20', 'NR-90'])[1 + id % 3], 1 + id % 4 FROM sales.orders;
CREATE TABLE sales.commissions (person text, quarter text, amount numeric);
INSERT INTO sales.commissions VALUES ('pierre_lemaire', '2026Q2', 4100), ('grace_mbeki', '2026Q2', 6800);
CREATE TABLE sales.partners (id int PRIMARY KEY, name text, region text);
INSERT INTO sales.partners VALUES (1, 'Nordic Automation', 'Nordics'), (2, 'Iberobot', 'Iberia');
GRANT SELECT ON sales.products, sales.price_list TO PUBLIC;
GRANT SELECT, INSERT, UPDATE ON sales.customers, sales.contacts, sales.opportunities, sales.quotes, sales.orders, sales.order_lines TO sales_staff;
GRANT SELECT ON sales.commissions, sales.partners TO sales_leads WITH GRANT OPTION;
GRANT SELECT, INSERT ON sales.orders, sales.order_lines, sales.customers TO svc_webshop;
GRANT SELECT ON sales.orders, sales.order_lines TO finance_staff, warehouse_staff;
GRANT TRUNCATE ON sales.quotes TO luca_ferri;
RESET ROLE;
CREATE TABLE sales.my_forecast (quarter text, guess numeric);  -- somebody's own table among the company's
INSERT INTO sales.my_forecast VALUES ('2026Q4', 3100000);
ALTER TABLE sales.my_forecast OWNER TO luca_ferri;

-- ops
SET LOCAL ROLE ops_app;
CREATE TABLE ops.announcements (id int PRIMARY KEY, said_on date, body text);
INSERT INTO ops.announcements VALUES (1, '2026-06-01', 'Summer opening hours'), (2, '2026-08-15', 'Fire drill on Friday');
CREATE TABLE ops.sites (id int PRIMARY KEY, name text, country text);
INSERT INTO ops.sites VALUES (1, 'Gothenburg', 'SE'), (2, 'Leipzig', 'DE');
CREATE TABLE ops.shifts (site_id int REFERENCES ops.sites, person text, starts_at timestamptz);
INSERT INTO ops.shifts VALUES (1, 'bruno_costa', '2026-09-01 06:00+00'), (2, 'yuki_mori', '2026-09-01 14:00+00');
CREATE TABLE ops.incidents (id int PRIMARY KEY, opened_at timestamptz, severity int, summary text);
INSERT INTO ops.incidents VALUES (1, '2026-05-02 03:10+00', 2, 'Dock lost power'), (2, '2026-07-19 11:42+00', 1, 'Fleet stopped in aisle 7');
CREATE TABLE ops.runbooks (id int PRIMARY KEY, title text, body text);
INSERT INTO ops.runbooks VALUES (1, 'Restart a dock', 'Ask on-call.'), (2, 'Nightly export', 'Runs on the database host.');
CREATE TABLE ops.jobs (name text PRIMARY KEY, schedule text, command text);
INSERT INTO ops.jobs VALUES ('nightly-export', '0 2 * * *', 'export-orders'), ('rotate-logs', '0 4 * * 0', 'rotate');
CREATE TABLE ops.assets (tag text PRIMARY KEY, kind text, holder text);
INSERT INTO ops.assets VALUES ('A-001', 'laptop', 'ada_lindqvist'), ('A-002', 'forklift', NULL), ('A-003', 'laptop', 'john_ashworth');
CREATE TABLE ops.rota (week date, person text);
INSERT INTO ops.rota VALUES ('2026-08-31', 'ada_lindqvist'), ('2026-09-07', 'omar_farouk');
GRANT SELECT ON ops.announcements TO PUBLIC;
GRANT SELECT, INSERT, UPDATE ON ops.shifts, ops.incidents, ops.assets TO ops_staff;
GRANT SELECT ON ops.sites, ops.runbooks TO ops_staff, engineering, contractors;
GRANT ALL ON ops.runbooks, ops.jobs, ops.incidents TO eng_oncall;
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.rota TO helpdesk;
RESET ROLE;

-- warehouse
SET LOCAL ROLE warehouse_app;
CREATE TABLE warehouse.locations (id int PRIMARY KEY, site_id int, aisle text, shelf int);
INSERT INTO warehouse.locations SELECT n, 1 + n % 2, chr(64 + n), n * 2 FROM generate_series(1, 8) n;
CREATE TABLE warehouse.parts (part text PRIMARY KEY, name text, unit_cost numeric);
INSERT INTO warehouse.parts VALUES ('P-1', 'Bearing', 4.2), ('P-2', 'Battery cell', 31), ('P-3', 'Lidar', 870), ('P-4', 'Controller', 210);
CREATE TABLE warehouse.stock (part text REFERENCES warehouse.parts, location_id int REFERENCES warehouse.locations, quantity int);
INSERT INTO warehouse.stock SELECT part, row_number() OVER (), 40 FROM warehouse.parts;
CREATE TABLE warehouse.movements (id int PRIMARY KEY, part text REFERENCES warehouse.parts, quantity int, moved_at timestamptz);
INSERT INTO warehouse.movements SELECT n, 'P-' || 1 + n % 4, n % 7 - 3, timestamptz '2026-08-01 08:00+00' + n * interval '1 hour' FROM generate_series(1, 12) n;
CREATE TABLE warehouse.suppliers (id int PRIMARY KEY, name text);
INSERT INTO warehouse.suppliers VALUES (1, 'Bearing & Co'), (2, 'Cell Power');
CREATE TABLE warehouse.purchase_orders (id int PRIMARY KEY, supplier_id int REFERENCES warehouse.suppliers, part text REFERENCES warehouse.parts, quantity int);
INSERT INTO warehouse.purchase_orders VALUES (1, 1, 'P-1', 500), (2, 2, 'P-2', 120);
CREATE TABLE warehouse.shipments (id int PRIMARY KEY, order_id int, carrier text, shipped_on date);
INSERT INTO warehouse.shipments VALUES (1, 1, 'Kite Logistics', '2026-02-01'), (2, 2, 'Kite Logistics', '2026-02-07');
CREATE TABLE warehouse.returns (id int PRIMARY KEY, shipment_id int REFERENCES warehouse.shipments, reason text);
INSERT INTO warehouse.returns VALUES (1, 2, 'damaged crate');
CREATE TABLE warehouse.robots (serial text PRIMARY KEY, sku text, firmware text);
INSERT INTO warehouse.robots VALUES ('R-0001', 'NR-10', '4.2.0'), ('R-0002', 'NR-20', '4.1.7');
GRANT SELECT ON ALL TABLES IN SCHEMA warehouse TO ops_staff;
GRANT INSERT, UPDATE ON warehouse.stock, warehouse.movements, warehouse.shipments, warehouse.returns TO warehouse_staff;
GRANT SELECT (part, quantity) ON warehouse.stock TO svc_webshop;
GRANT INSERT, DELETE ON warehouse.purchase_orders TO stefan_kowal;
GRANT UPDATE (firmware) ON warehouse.robots TO contractors_fieldtech;
ALTER DEFAULT PRIVILEGES IN SCHEMA warehouse GRANT SELECT ON TABLES TO ops_staff;
RESET ROLE;
