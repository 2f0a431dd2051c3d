-- Roles of Northwind Robotics, a company of some thirty people that builds warehouse robots. They belong to the whole server.
-- Nobody has a password, so nobody can log in but the reader that sample.Reader gives one.

-- Groups. Nesting is by GRANT below.
CREATE ROLE cluster_owner SUPERUSER NOLOGIN;
CREATE ROLE dba NOLOGIN NOINHERIT CREATEDB;      -- must SET ROLE to act as cluster_owner, by intent
CREATE ROLE helpdesk NOLOGIN CREATEROLE;         -- makes accounts for newcomers
CREATE ROLE job_hosts NOLOGIN;                   -- nightly jobs that start programs on the database host
CREATE ROLE everyone NOLOGIN;
CREATE ROLE hr_staff NOLOGIN;
CREATE ROLE hr_managers NOLOGIN;
CREATE ROLE payroll_read NOLOGIN;
CREATE ROLE payroll_write NOLOGIN;
CREATE ROLE finance_staff NOLOGIN;
CREATE ROLE finance_controlling NOLOGIN;
CREATE ROLE finance_close NOLOGIN;               -- closes the books each quarter
CREATE ROLE sales_staff NOLOGIN;
CREATE ROLE sales_leads NOLOGIN;
CREATE ROLE warehouse_staff NOLOGIN;
CREATE ROLE ops_staff NOLOGIN;
CREATE ROLE engineering NOLOGIN;
CREATE ROLE eng_oncall NOLOGIN;
CREATE ROLE analysts NOLOGIN;
CREATE ROLE contractors NOLOGIN;
CREATE ROLE contractors_ledgerworks NOLOGIN;     -- an accounting firm that helps at quarter end
CREATE ROLE contractors_fieldtech NOLOGIN;
-- Owners of schemas: nobody is a member, releases run as them.
CREATE ROLE hr_app NOLOGIN;
CREATE ROLE finance_app NOLOGIN;
CREATE ROLE sales_app NOLOGIN;
CREATE ROLE ops_app NOLOGIN;
CREATE ROLE warehouse_app NOLOGIN;
CREATE ROLE analytics_app NOLOGIN;
CREATE ROLE telemetry_app NOLOGIN;

GRANT cluster_owner TO dba;
GRANT pg_execute_server_program TO job_hosts;
GRANT pg_read_all_data TO analysts;
GRANT payroll_read TO payroll_write;
GRANT payroll_read TO finance_controlling;       -- to accrue wages
GRANT payroll_write TO hr_managers;
GRANT hr_staff TO hr_managers;
GRANT finance_staff TO finance_controlling;
GRANT finance_controlling TO finance_close;
GRANT finance_close TO contractors_ledgerworks;  -- "only until the audit is over"
GRANT contractors TO contractors_ledgerworks, contractors_fieldtech;
GRANT sales_staff TO sales_leads;
GRANT ops_staff TO warehouse_staff;
GRANT engineering TO eng_oncall;
GRANT job_hosts TO eng_oncall;
GRANT warehouse_staff TO contractors_fieldtech;
GRANT everyone TO hr_staff, finance_staff, sales_staff, ops_staff, engineering, analysts, helpdesk;
GRANT eng_oncall TO helpdesk WITH ADMIN OPTION;  -- helpdesk fills in the rota

-- People.
CREATE ROLE margaret_shaw LOGIN;   -- chief executive
GRANT everyone, sales_leads TO margaret_shaw;

CREATE ROLE helen_okafor LOGIN;
CREATE ROLE ruth_amsel LOGIN;
CREATE ROLE tomas_vidal LOGIN;
GRANT hr_managers TO helen_okafor;
GRANT hr_staff TO ruth_amsel, tomas_vidal;
GRANT payroll_write TO ruth_amsel;

CREATE ROLE dana_whitlock LOGIN;   -- chief financial officer
CREATE ROLE igor_petrenko LOGIN;
CREATE ROLE mei_tanaka LOGIN;
CREATE ROLE sofia_brandt LOGIN;
GRANT finance_close TO dana_whitlock WITH ADMIN OPTION;
GRANT finance_controlling TO igor_petrenko;
GRANT finance_staff TO mei_tanaka, sofia_brandt;

CREATE ROLE luca_ferri LOGIN;
CREATE ROLE nadia_haddad LOGIN;
CREATE ROLE pierre_lemaire LOGIN;
CREATE ROLE grace_mbeki LOGIN;
CREATE ROLE john_ashworth NOLOGIN; -- left in spring; memberships were forgotten
GRANT sales_leads TO luca_ferri, nadia_haddad;
GRANT sales_staff TO pierre_lemaire, grace_mbeki, john_ashworth;

CREATE ROLE stefan_kowal LOGIN;
CREATE ROLE aisha_rahman LOGIN;
CREATE ROLE bruno_costa LOGIN CONNECTION LIMIT 4;
CREATE ROLE yuki_mori LOGIN;
GRANT ops_staff TO stefan_kowal, aisha_rahman;
GRANT warehouse_staff TO bruno_costa, yuki_mori;

CREATE ROLE ada_lindqvist LOGIN;
CREATE ROLE omar_farouk LOGIN;
CREATE ROLE priya_nair LOGIN;
CREATE ROLE liam_doyle LOGIN NOINHERIT;
CREATE ROLE chen_wei LOGIN;
CREATE ROLE elena_rossi LOGIN;
GRANT eng_oncall TO ada_lindqvist, omar_farouk;
GRANT engineering TO priya_nair, liam_doyle, chen_wei;
GRANT analysts TO elena_rossi;
GRANT finance_staff TO chen_wei;   -- moved from finance to engineering and kept it

CREATE ROLE karl_jensen LOGIN;
CREATE ROLE fatima_zahra LOGIN;
CREATE ROLE viktor_hale LOGIN;
GRANT helpdesk TO karl_jensen, fatima_zahra;
GRANT dba TO viktor_hale;

-- Contractors: their accounts end by themselves, their memberships don't.
CREATE ROLE marek_dvorak LOGIN VALID UNTIL '2035-06-30 22:00:00+00';
CREATE ROLE jana_novak LOGIN VALID UNTIL '2024-12-31 23:00:00+00';
CREATE ROLE sam_oduya LOGIN VALID UNTIL '2035-03-31 22:00:00+00';
GRANT contractors_ledgerworks TO marek_dvorak, jana_novak;
GRANT contractors_fieldtech TO sam_oduya;

-- Service accounts.
CREATE ROLE svc_erp LOGIN CONNECTION LIMIT 20;
CREATE ROLE svc_webshop LOGIN CONNECTION LIMIT 50;
CREATE ROLE svc_etl LOGIN;
CREATE ROLE svc_backup LOGIN REPLICATION;
CREATE ROLE svc_grafana LOGIN;
CREATE ROLE svc_badges LOGIN;
GRANT finance_staff, warehouse_staff TO svc_erp;
GRANT analysts TO svc_etl, svc_grafana;
GRANT pg_read_all_data TO svc_backup;
GRANT pg_monitor TO svc_grafana;

-- Reads the catalogues for access discovery; it may connect and nothing else.
CREATE ROLE accessos_reader LOGIN CONNECTION LIMIT 8;

-- Whose each account is: the comment is where administrators write it down.
COMMENT ON ROLE margaret_shaw IS 'Margaret Shaw <margaret.shaw@northwind.example>';
COMMENT ON ROLE helen_okafor IS 'Helen Okafor <helen.okafor@northwind.example>';
COMMENT ON ROLE ruth_amsel IS 'Ruth Amsel <ruth.amsel@northwind.example>';
COMMENT ON ROLE tomas_vidal IS 'Tomas Vidal <tomas.vidal@northwind.example>';
COMMENT ON ROLE dana_whitlock IS 'Dana Whitlock <dana.whitlock@northwind.example>';
COMMENT ON ROLE igor_petrenko IS 'Igor Petrenko <igor.petrenko@northwind.example>';
COMMENT ON ROLE mei_tanaka IS 'Mei Tanaka <mei.tanaka@northwind.example>';
COMMENT ON ROLE sofia_brandt IS 'Sofia Brandt <sofia.brandt@northwind.example>';
COMMENT ON ROLE luca_ferri IS 'Luca Ferri <luca.ferri@northwind.example>';
COMMENT ON ROLE nadia_haddad IS 'Nadia Haddad <nadia.haddad@northwind.example>';
COMMENT ON ROLE pierre_lemaire IS 'Pierre Lemaire <pierre.lemaire@northwind.example>';
COMMENT ON ROLE grace_mbeki IS 'Grace Mbeki <grace.mbeki@northwind.example>';
COMMENT ON ROLE stefan_kowal IS 'Stefan Kowal <stefan.kowal@northwind.example>';
COMMENT ON ROLE aisha_rahman IS 'Aisha Rahman <aisha.rahman@northwind.example>';
COMMENT ON ROLE bruno_costa IS 'Bruno Costa <bruno.costa@northwind.example>';
COMMENT ON ROLE yuki_mori IS 'Yuki Mori <yuki.mori@northwind.example>';
COMMENT ON ROLE ada_lindqvist IS 'Ada Lindqvist <ada.lindqvist@northwind.example>';
COMMENT ON ROLE omar_farouk IS 'Omar Farouk <omar.farouk@northwind.example>';
COMMENT ON ROLE priya_nair IS 'Priya Nair <priya.nair@northwind.example>';
COMMENT ON ROLE liam_doyle IS 'Liam Doyle <liam.doyle@northwind.example>';
COMMENT ON ROLE chen_wei IS 'Chen Wei <chen.wei@northwind.example>';
COMMENT ON ROLE elena_rossi IS 'Elena Rossi <elena.rossi@northwind.example>';
COMMENT ON ROLE karl_jensen IS 'Karl Jensen <karl.jensen@northwind.example>';
COMMENT ON ROLE fatima_zahra IS 'Fatima Zahra <fatima.zahra@northwind.example>';
COMMENT ON ROLE viktor_hale IS 'Viktor Hale <viktor.hale@northwind.example>';
COMMENT ON ROLE marek_dvorak IS 'Marek Dvorak <marek.dvorak@northwind.example>';
COMMENT ON ROLE jana_novak IS 'Jana Novak <jana.novak@northwind.example>';
COMMENT ON ROLE sam_oduya IS 'Sam Oduya <sam.oduya@northwind.example>';
