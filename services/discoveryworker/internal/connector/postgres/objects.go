package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// section is one kind of thing, read page by page in order of oid. read emits a page of at most limit things after an oid and
// answers the last oid and how many there were; fewer than limit is the end.
type section struct {
	name, words string
	read        func(ctx context.Context, s *session, after uint32, limit int) (last uint32, count int, err error)
}

// sharedSections are what belongs to the whole server.
func sharedSections(version int) []section {
	out := []section{
		{"roles", "roles", readRoles},
		{"databases", "databases", readObjects("databases")},
		{"tablespaces", "tablespaces", readObjects("tablespaces")},
	}
	if version >= 15 {
		out = append(out, section{"parameters", "parameters", readObjects("parameters")})
	}
	return out
}

// databaseSections are what belongs to one database.
func databaseSections() []section {
	return []section{
		{"schemas", "schemas", readObjects("schemas")},
		{"relations", "tables, views and sequences", readObjects("relations")},
		{"columns", "columns", readObjects("columns")},
		{"functions", "functions", readObjects("functions")},
		{"languages", "languages", readObjects("languages")},
		{"foreign_data_wrappers", "foreign-data wrappers", readObjects("foreign_data_wrappers")},
		{"foreign_servers", "foreign servers", readObjects("foreign_servers")},
		{"types", "types and domains", readObjects("types")},
		{"large_objects", "large objects", readObjects("large_objects")},
	}
}

// columnACL is the letter of columns.
const columnACL = "c"

// aclKinds are the letters that acldefault knows kinds of objects by (acldefault_sql in acl.c), by type of resource.
var aclKinds = map[string]string{
	"database": "d", "tablespace": "t", "parameter": "p", "schema": "n",
	"table": "r", "view": "r", "materialized_view": "r", "foreign_table": "r", "sequence": "s", "column": columnACL,
	"function": "f", "procedure": "f", "language": "l", "foreign_data_wrapper": "F", "foreign_server": "S",
	"type": "T", "domain": "T", "large_object": "L",
}

// object is a row of a catalogue and its ACL.
type object struct {
	oid          uint32
	resourceType string
	// names from the schema (or the object itself) down, and what follows them: the arguments of a function.
	names  []string
	suffix string
	// owner, or empty where there is none of its own.
	owner string
	// defaulted says that nobody changed the ACL.
	defaulted bool
	// catalogue tables are changed by superusers only, whatever the ACL says.
	catalogue bool
	// details are names and values of attributes, in turn.
	details []string
	acl     []aclItem
}

// aclItem is one privilege of one grantee, whoever granted it.
type aclItem struct {
	grantee     uint32 // 0 is PUBLIC
	granteeName string
	privilege   string
	grantable   bool
	grantors    string
}

// readObjects reads a page of one kind of object. Its query answers a row for each item of an object's ACL.
func readObjects(name string) func(context.Context, *session, uint32, int) (uint32, int, error) {
	return func(ctx context.Context, s *session, after uint32, limit int) (uint32, int, error) {
		rows, err := s.tx.Query(ctx, query(name), after, limit)
		if err != nil {
			return 0, 0, err
		}
		objects, err := collectObjects(rows)
		if err != nil {
			return 0, 0, err
		}
		last, count := uint32(0), 0
		for _, o := range objects {
			if o.oid != last { // columns of one table are one thing of a page
				last, count = o.oid, count+1
			}
			if err := s.emitObject(ctx, o); err != nil {
				return 0, 0, err
			}
		}
		return last, count, nil
	}
}

func collectObjects(rows pgx.Rows) ([]*object, error) {
	var objects []*object
	var o object
	var item aclItem
	var grantee *uint32
	_, err := pgx.ForEachRow(rows, []any{
		&o.oid, &o.resourceType, &o.names, &o.suffix, &o.owner, &o.defaulted, &o.catalogue, &o.details,
		&grantee, &item.granteeName, &item.privilege, &item.grantable, &item.grantors,
	}, func() error {
		if n := len(objects); n == 0 || objects[n-1].oid != o.oid || !slices.Equal(objects[n-1].names, o.names) {
			next := o
			next.names, next.details = slices.Clone(o.names), slices.Clone(o.details)
			objects = append(objects, &next)
		}
		if grantee != nil && (*grantee == 0 || item.granteeName != "") {
			item.grantee = *grantee
			of := objects[len(objects)-1]
			of.acl = append(of.acl, item)
		}
		return nil
	})
	return objects, err
}

// detail says that an attribute has a value.
func (o *object) detail(name, value string) bool {
	for i := 0; i+1 < len(o.details); i += 2 {
		if o.details[i] == name {
			return o.details[i+1] == value
		}
	}
	return false
}

// shared says that the object belongs to no database.
func (o *object) shared() bool {
	return o.resourceType == "database" || o.resourceType == "tablespace" || o.resourceType == "parameter"
}

// ref is the object's name in the system: the database's, then its own.
func (s *session) ref(o *object) *discoveryv1.ResourceRef {
	switch {
	case o.resourceType == "database":
		return databaseRef(o.names[0])
	case o.shared():
		return ref(o.resourceType, fit(o.names[0], longestName))
	default:
		return ref(o.resourceType, fit(qualified(append([]string{s.database}, o.names...)...)+o.suffix, longestName))
	}
}

func databaseRef(name string) *discoveryv1.ResourceRef { return ref("database", clean(name)) }

// relation is the relation of a column.
func (s *session) relation(column *object) *discoveryv1.ResourceRef {
	return ref(column.details[1], fit(qualified(append([]string{s.database}, column.names[:2]...)...), longestName))
}

// parent is what the object is part of.
func (s *session) parent(o *object) *discoveryv1.ResourceRef {
	switch {
	case o.shared():
		return serverRef
	case o.resourceType == "column":
		return s.relation(o)
	case len(o.names) == 1, o.names[0] == "pg_catalog", o.names[0] == "information_schema":
		// The server's own schemas are left out unless their ACL was changed.
		return databaseRef(s.database)
	default:
		return ref("schema", fit(qualified(s.database, o.names[0]), longestName))
	}
}

// role is whom a name in an ACL means, there.
func (s *session) role(o *object, name string) *discoveryv1.ResourceRef {
	switch {
	case name != databaseOwner:
		return roleRef(name)
	case o.resourceType == "database":
		return databaseOwnerRef(o.names[0])
	case o.shared():
		return roleRef(name)
	default:
		return databaseOwnerRef(s.database)
	}
}

func (s *session) emitObject(ctx context.Context, o *object) error {
	privileges, err := s.privilegesOf(ctx, aclKinds[o.resourceType])
	if err != nil {
		return err
	}
	self := s.ref(o)
	s.resource(&discoveryv1.Resource{
		Type: self.GetType(), ExternalId: self.GetExternalId(), DisplayName: qualified(o.names...) + o.suffix, Parent: s.parent(o),
		Attributes: objectAttributes(o),
	})
	for _, p := range privileges {
		e := s.entitlement(self, p, permission, "")
		if o.resourceType == "column" {
			s.expansion(held(s.relation(o), p), e, "privileges on a table hold for its columns")
		} else {
			s.expansion(beSuperuser, e, whySuperuser)
		}
		s.emitPowers(o, e)
	}
	granted := map[string]bool{}
	for _, item := range o.acl {
		if o.catalogue && changes(item.privilege) {
			continue
		}
		principal := publicRef
		if item.grantee != 0 {
			principal = s.role(o, item.granteeName)
		}
		if item.granteeName == o.owner {
			granted[item.privilege] = true
		}
		s.grant(principal, held(self, item.privilege), item.grantable, aclReason(o, item))
	}
	if o.owner != "" {
		s.emitOwner(o, self, privileges, granted)
	}
	if o.resourceType == "database" {
		if err := s.readListed(ctx); err != nil {
			return err
		}
		s.emitDatabaseOwner(o)
	}
	return nil
}

// emitOwner emits ownership. What the owner took from itself it can give back to itself.
func (s *session) emitOwner(o *object, self *discoveryv1.ResourceRef, privileges []string, granted map[string]bool) {
	e := s.entitlement(self, owner, permission, "Changes and drops it, and grants privileges on it.")
	s.expansion(beSuperuser, e, whySuperuser)
	s.grant(s.role(o, o.owner), e, true, "owner")
	for _, p := range privileges {
		if !granted[p] && !(o.catalogue && changes(p)) {
			s.expansionByAct(e, held(self, p), "owner: can grant itself what was revoked")
		}
	}
}

// emitDatabaseOwner emits the role that pg_database_owner is in a database, and its only member.
func (s *session) emitDatabaseOwner(o *object) {
	name := o.names[0]
	self := databaseOwnerRef(name)
	s.resource(&discoveryv1.Resource{
		Type: self.GetType(), ExternalId: self.GetExternalId(), DisplayName: fmt.Sprintf("%s of %s", databaseOwner, name),
		Parent: databaseRef(name), Attributes: map[string]string{"predefined": "true"},
	})
	s.grant(self, publicMember, false, "every role is in PUBLIC")
	s.emitMembershipOf(self, s.listed[o.owner])
	principal := roleRef(o.owner)
	if s.version >= 16 || !o.detail("owner_inherits", "false") {
		s.grant(principal, held(self, member), false, "owner of the database")
	}
	s.emitListed(o.owner, self)
	s.grantNotInherited(principal, held(self, set), "owner of the database")
	// What pg_database_owner was granted outside databases holds for whoever is connected to one that it owns.
	s.grant(self, held(roleRef(databaseOwner), member), false, "while connected to the database")
}

// emitPowers emits what predefined roles may do to every object of a kind (pg_class_aclmask_ext and pg_namespace_aclmask_ext).
func (s *session) emitPowers(o *object, e *discoveryv1.EntitlementRef) {
	power := func(name, why string) { s.expansion(held(serverRef, name), e, why) }
	const reads, writes = "pg_read_all_data reads everything", "pg_write_all_data changes everything"
	switch privilege := e.GetName(); aclKinds[o.resourceType] {
	case "n":
		if privilege == "USAGE" {
			power("read_all_data", reads)
			power("write_all_data", writes)
		}
	case "s":
		switch privilege {
		case "SELECT":
			power("read_all_data", reads)
		case "UPDATE":
			power("write_all_data", writes)
		}
	case "r":
		switch privilege {
		case "SELECT":
			power("read_all_data", reads)
		case "INSERT", "UPDATE", "DELETE":
			if !o.catalogue {
				power("write_all_data", writes)
			}
		case "MAINTAIN":
			power("maintain_all", "pg_maintain maintains everything")
		}
	}
}

// changes says that a privilege is one of those that the server keeps from all but superusers on its catalogues.
func changes(privilege string) bool {
	switch privilege {
	case "INSERT", "UPDATE", "DELETE", "TRUNCATE", "USAGE":
		return true
	default:
		return false
	}
}

func aclReason(o *object, item aclItem) string {
	switch {
	case o.owner != "" && item.granteeName == o.owner && item.grantors == o.owner:
		return "owner"
	case o.defaulted:
		return fmt.Sprintf("default for every %s", o.resourceType)
	case item.grantable && item.grantee != 0:
		return "GRANT by " + item.grantors + " WITH GRANT OPTION"
	default:
		return "GRANT by " + item.grantors
	}
}

func objectAttributes(o *object) map[string]string {
	out := map[string]string{}
	if o.owner != "" {
		out["owner"] = clean(o.owner)
	}
	for i := 0; i+1 < len(o.details); i += 2 {
		out[o.details[i]] = clean(o.details[i+1])
	}
	return out
}
