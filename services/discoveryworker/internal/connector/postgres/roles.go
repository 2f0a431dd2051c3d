package postgres

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/clip"
)

// Names of entitlements. Those of objects are the privileges' own names.
const (
	// member of a role has at once what the role has.
	member = "member"
	// set allows SET ROLE.
	set = "set"
	// admin allows granting the role.
	admin = "admin"
	// listed is membership without SET ROLE, as pg_hba.conf's +role and pg_has_role(…, 'MEMBER') count it.
	listed = "listed"
	// owner of an object.
	owner = "owner"

	superuser  = "superuser"
	createRole = "createrole"
)

// firstNormal is the first oid that isn't made by initdb (FirstNormalObjectId).
const firstNormal = 16384

// databaseOwner is the role whose member is the owner of the database one is connected to, so that it is another role in each.
const databaseOwner = "pg_database_owner"

var (
	serverRef    = ref("server", "server")
	publicRef    = ref("group", "public")
	publicMember = held(publicRef, member)
	beSuperuser  = held(serverRef, superuser)
)

const (
	whySuperuser = "a superuser passes every check"
	whySetRole   = "SET ROLE"
)

func roleRef(name string) *discoveryv1.ResourceRef { return ref("role", clean(name)) }

// databaseOwnerRef is pg_database_owner as it is in one database. No role's name can be mistaken for it: `pg_` is reserved.
func databaseOwnerRef(database string) *discoveryv1.ResourceRef {
	return ref("role", databaseOwner+"@"+clean(database))
}

// attribute is what a role is, rather than what it was granted; members do not have it.
type attribute struct {
	name, description string
}

var attributes = []attribute{
	{superuser, "Passes every check, but that it may log in."},
	{createRole, "Makes, changes and drops roles."},
	{"createdb", "Makes databases."},
	{"replication", "Copies the whole server by replication."},
	{"bypassrls", "Passes row-level security."},
}

// power is what a predefined role is made for. Others of them have grants like any role.
type power struct {
	role, name, description string
	// since is the first version that has the role.
	since int
	// superuser says how its holder becomes superuser, if it can.
	superuser string
}

var powers = []power{
	{"pg_read_all_data", "read_all_data", "Reads every table, view and sequence.", 14, ""},
	{"pg_write_all_data", "write_all_data", "Changes the rows of every table, view and sequence.", 14, ""},
	{"pg_maintain", "maintain_all", "Maintains every table: VACUUM, ANALYZE, CLUSTER, REINDEX, LOCK.", 17, ""},
	{
		"pg_read_server_files", "read_files", "Reads every file that the server can read.", 11,
		"pg_read_server_files: reads the server's own files, the verifiers of all passwords among them; PostgreSQL says that it could be used to gain superuser-level access",
	},
	{
		"pg_write_server_files", "write_files", "Writes every file that the server can write.", 11,
		"pg_write_server_files: can overwrite the server's own configuration",
	},
	{
		"pg_execute_server_program", "execute_program", "Runs programs as the server's operating system user.", 11,
		"pg_execute_server_program: runs programs as the server's operating system user, who owns its files",
	},
}

// role is a row of pg_roles.
type role struct {
	oid                                                              uint32
	name                                                             string
	super, inherit, createRole, createDB, login, replication, bypass bool
	connections                                                      int32
	validUntil                                                       string
	expired                                                          bool
	comment                                                          string
}

func (r *role) predefined() bool {
	return r.oid < firstNormal && len(r.name) > 3 && r.name[:3] == "pg_"
}

// has answers in the order of attributes.
func (r *role) has() []bool {
	return []bool{r.super, r.createRole, r.createDB, r.replication, r.bypass}
}

// grantable says that membership can be granted by those who may grant it: nobody but a superuser makes a superuser, and nobody at
// all is granted pg_database_owner.
func (r *role) grantable() bool { return !r.super && r.name != databaseOwner }

// readRoles reads a page of roles and who is a member of them.
func readRoles(ctx context.Context, s *session, after uint32, limit int) (uint32, int, error) {
	if after == 0 {
		s.emitServer()
	}
	if err := s.readListed(ctx); err != nil {
		return 0, 0, err
	}
	rows, err := s.tx.Query(ctx, query("roles"), after, limit)
	if err != nil {
		return 0, 0, err
	}
	roles, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*role, error) {
		var r role
		err := row.Scan(&r.oid, &r.name, &r.super, &r.inherit, &r.createRole, &r.createDB, &r.login, &r.replication, &r.bypass, &r.connections,
			&r.validUntil, &r.expired, &r.comment)
		return &r, err
	})
	if err != nil || len(roles) == 0 {
		return 0, 0, err
	}
	byOID := make(map[uint32]*role, len(roles))
	oids := make([]uint32, len(roles))
	for i, r := range roles {
		s.emitRole(r)
		byOID[r.oid], oids[i] = r, r.oid
	}
	if err := s.readMemberships(ctx, byOID, oids); err != nil {
		return 0, 0, err
	}
	return roles[len(roles)-1].oid, len(roles), nil
}

// readListed reads which roles somebody is listed in without SET ROLE; before PostgreSQL 16 there are none.
func (s *session) readListed(ctx context.Context) error {
	if s.version < 16 || s.listed != nil {
		return nil
	}
	rows, err := s.tx.Query(ctx, query("listed_16"))
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	s.listed = make(map[string]bool, len(names))
	for _, name := range names {
		s.listed[name] = true
	}
	return err
}

// readMemberships reads who is a member of these roles.
func (s *session) readMemberships(ctx context.Context, roles map[uint32]*role, oids []uint32) error {
	name := "memberships_15"
	if s.version >= 16 {
		name = "memberships_16"
	}
	rows, err := s.tx.Query(ctx, query(name), oids)
	if err != nil {
		return err
	}
	var roleOID uint32
	var memberName, grantors string
	var isAdmin, inherits, sets bool
	_, err = pgx.ForEachRow(rows, []any{&roleOID, &memberName, &isAdmin, &inherits, &sets, &grantors}, func() error {
		of, principal := roleRef(roles[roleOID].name), roleRef(memberName)
		reason := "GRANT by " + grantors
		if inherits {
			s.grant(principal, held(of, member), isAdmin, reason)
		}
		if sets {
			s.grantNotInherited(principal, held(of, set), reason)
		} else {
			s.grant(principal, held(of, listed), false, reason+" WITH SET FALSE")
		}
		if isAdmin {
			s.grant(principal, held(of, admin), true, reason+" WITH ADMIN OPTION")
		}
		s.emitListed(memberName, of)
		return nil
	})
	return err
}

// emitListed makes whoever is listed in a member of a role listed in the role too.
func (s *session) emitListed(memberName string, of *discoveryv1.ResourceRef) {
	if s.listed[memberName] {
		s.expansion(held(roleRef(memberName), listed), held(of, listed), fmt.Sprintf("%s is a member of %s", memberName, of.GetExternalId()))
	}
}

// emitServer emits the server, its attributes and powers, and PUBLIC.
func (s *session) emitServer() {
	name := s.server.source.Name
	if name == "" {
		name = s.server.String()
	}
	s.resource(&discoveryv1.Resource{
		Type: serverRef.GetType(), ExternalId: serverRef.GetExternalId(), DisplayName: name,
		Attributes: map[string]string{"version": s.versionName, "address": s.server.String()},
	})
	for _, a := range attributes {
		e := s.entitlement(serverRef, a.name, permission, a.description)
		if a.name != superuser {
			s.expansion(beSuperuser, e, whySuperuser)
		}
	}
	if s.version < 16 {
		s.expansionByAct(held(serverRef, createRole), held(serverRef, "createdb"), "CREATEROLE: can give itself CREATEDB (PostgreSQL 15 and older)")
	}
	for _, p := range powers {
		if s.version < p.since {
			continue
		}
		e := s.entitlement(serverRef, p.name, permission, p.description)
		s.grant(roleRef(p.role), e, false, "predefined role")
		if p.superuser != "" {
			s.expansionByAct(e, beSuperuser, p.superuser)
		}
	}
	s.resource(&discoveryv1.Resource{
		Type: publicRef.GetType(), ExternalId: publicRef.GetExternalId(), DisplayName: "PUBLIC", Parent: serverRef,
		Attributes: map[string]string{"predefined": "true"},
	})
	s.entitlement(publicRef, member, membership, "Every role has what PUBLIC was granted.")
}

func (s *session) emitRole(r *role) {
	self := roleRef(r.name)
	s.resource(&discoveryv1.Resource{
		Type: self.GetType(), ExternalId: self.GetExternalId(), DisplayName: r.name, Parent: serverRef,
		Attributes: roleAttributes(r), Account: r.login,
	})
	s.grant(self, publicMember, false, "every role is in PUBLIC")
	for i, a := range attributes {
		if r.has()[i] {
			s.grantNotInherited(self, held(serverRef, a.name), "attribute of the role")
		}
	}
	s.emitMembershipOf(self, s.listed[r.name])
	toSet, toAdmin := held(self, set), s.entitlement(self, admin, permission, "Grants membership of the role, to itself as well.")
	s.expansion(beSuperuser, toAdmin, whySuperuser)
	if r.grantable() {
		s.expansionByAct(toAdmin, toSet, "ADMIN OPTION: can grant itself the role")
		if s.version < 16 {
			s.expansionByAct(held(serverRef, createRole), toSet, "CREATEROLE: can grant itself any role that is no superuser (PostgreSQL 15 and older)")
		}
	}
}

// emitMembershipOf emits what membership of a role can be.
func (s *session) emitMembershipOf(role *discoveryv1.ResourceRef, isListed bool) {
	s.expansion(beSuperuser, s.entitlement(role, member, membership, "Has at once what the role was granted."), whySuperuser)
	s.expansion(beSuperuser, s.entitlement(role, set, assumption, "Takes the role's place by "+whySetRole+"."), whySuperuser)
	if isListed {
		s.entitlement(role, listed, permission, "Is a member on paper: neither SET ROLE nor, by this, anything of the role's.")
	}
}

func roleAttributes(r *role) map[string]string {
	out := map[string]string{"status": "active", "can_login": strconv.FormatBool(r.login)}
	for i, a := range attributes {
		if r.has()[i] {
			out[a.name] = "true"
		}
	}
	if r.expired {
		out["status"] = "expired"
	}
	if !r.inherit {
		out["inherit"] = "false"
	}
	if r.validUntil != "" {
		out["valid_until"] = r.validUntil
	}
	if r.connections >= 0 {
		out["connection_limit"] = strconv.Itoa(int(r.connections))
	}
	if r.predefined() {
		out["predefined"] = "true"
	}
	// What administrators write beside a role is the only place where PostgreSQL says whose it is.
	const mostComment = 500
	if comment := clip.Text(r.comment, mostComment); comment != "" && !r.predefined() {
		out["comment"] = comment
		if r.login {
			if email := soleAddress(comment); email != "" {
				out["email"] = email
			}
		}
	}
	return out
}

var addressForm = regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}`)

// soleAddress is the one mail address that a text holds; none where it holds several, for then it doesn't say whose.
func soleAddress(text string) string {
	found := addressForm.FindAllString(text, -1)
	if len(found) != 1 {
		return ""
	}
	return strings.ToLower(found[0])
}
