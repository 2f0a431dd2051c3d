package blueprint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

var (
	label    = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)
	roleName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,29}$`)
	envName  = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	route    = regexp.MustCompile(`^/[A-Za-z0-9._/-]*$`)
)

// mostConnections bounds one role, so that a slip of the pen does not eat a server.
const mostConnections = 100

// Fault is one thing that is wrong with a blueprint.
type Fault struct {
	// File and Line where it stands, Field as `components[2].env.A3_LISTEN`.
	File  string
	Line  int
	Field string
	// Text says what is wrong and what would be right.
	Text string
}

// Error is `file:line: field: text`.
func (f *Fault) Error() string {
	if f.Field == "" {
		return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Field, f.Text)
}

// Parse reads a blueprint that no release was made by yet, and refuses what is unknown, missing or contradictory, what no set could work with, and
// what the schema refuses. The error joins every Fault there is; file names the text in them.
func Parse(file string, text []byte) (*Blueprint, error) {
	c, err := read(file, text)
	if err != nil {
		return nil, err
	}
	c.shape(c.root.Content[0], reflect.TypeFor[Blueprint]())
	c.check()
	c.rules()
	return c.b, errors.Join(c.faults...)
}

// ParseKept reads a blueprint that releases were made by already, which nobody can mend: its digest is in what was signed. It refuses what can't be
// carried out alone, an unknown field or kind, a value that can't be read, a name of what isn't there; rules that came since are for new ones, and
// where bounds (Resources) are beyond what they may be, they are DefaultResources'. The error is as Parse's.
func ParseKept(file string, text []byte) (*Blueprint, error) {
	c, err := read(file, text)
	if err != nil {
		return nil, err
	}
	c.check()
	c.b.rebound()
	return c.b, errors.Join(c.faults...)
}

// read has a blueprint's text as what it says, unchecked.
func read(file string, text []byte) (*checker, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, syntax(file, nil, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	sum := sha256.Sum256(text)
	b := &Blueprint{Digest: "sha256:" + hex.EncodeToString(sum[:]), Text: bytes.Clone(text)}
	if err := dec.Decode(b); err != nil {
		return nil, syntax(file, &root, err)
	}
	if err := dec.Decode(&yaml.Node{}); err == nil {
		return nil, &Fault{File: file, Line: 1, Text: "there is more than one document: a file is one blueprint"}
	}
	return &checker{file: file, root: &root, b: b}, nil
}

type checker struct {
	file   string
	root   *yaml.Node
	b      *Blueprint
	faults []error
}

// find looks for the field at path, whose parts are names and indexes: its node, nil where it isn't written, its line, or that of the nearest one
// around it, and its name.
func (c *checker) find(path []any) (node *yaml.Node, line int, field string) {
	line, node = 1, c.root
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	var name strings.Builder
	for _, p := range path {
		var next *yaml.Node
		switch p := p.(type) {
		case int:
			fmt.Fprintf(&name, "[%d]", p)
			if node != nil && node.Kind == yaml.SequenceNode && p < len(node.Content) {
				next = node.Content[p]
			}
		case string:
			if name.Len() > 0 {
				name.WriteByte('.')
			}
			name.WriteString(p)
			if key, value := fieldOf(node, p); value != nil {
				next, line = value, key.Line
			}
		}
		if node = behind(next); node != nil && node.Line > line {
			line = node.Line
		}
	}
	return node, line, name.String()
}

// behind is what an alias stands for; any other node is itself.
func behind(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

// fieldOf is a field of a mapping, with its name: one of its own, or one that a merge key (`<<`) brings, the first of several.
func fieldOf(node *yaml.Node, name string) (key, value *yaml.Node) {
	if node = behind(node); node == nil || node.Kind != yaml.MappingNode {
		return nil, nil
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		switch key := behind(node.Content[i]); {
		case key.ShortTag() == "!!merge":
			merged = append(merged, node.Content[i+1])
		case key.Value == name:
			return key, node.Content[i+1]
		}
	}
	for _, from := range merged {
		sources := []*yaml.Node{from}
		if from = behind(from); from.Kind == yaml.SequenceNode {
			sources = from.Content
		}
		for _, source := range sources {
			if key, value = fieldOf(source, name); value != nil {
				return key, value
			}
		}
	}
	return nil, nil
}

// written says that a field stands in the file, whatever is in it.
func (c *checker) written(path []any) bool {
	node, _, _ := c.find(path)
	return node != nil
}

// at notes a fault of the field at path.
func (c *checker) at(path []any, format string, args ...any) {
	_, line, field := c.find(path)
	c.faults = append(c.faults, &Fault{File: c.file, Line: line, Field: field, Text: fmt.Sprintf(format, args...)})
}

// check is what every blueprint is held to, a kept one too: fleet could not carry it out otherwise. A rule that is added is one of rules, unless it is
// of a field that comes with it.
func (c *checker) check() {
	b := c.b
	if !label.MatchString(b.Name) {
		c.at([]any{"name"}, "%q is not a lower-case DNS label", b.Name)
	}
	if b.Artefact == "" {
		c.at([]any{"artefact"}, "it is missing: name the program that components are run from")
	}
	if b.Scope != ScopeTenant && b.Scope != ScopePlane {
		c.at([]any{"scope"}, "%q is not a scope: it is tenant or plane", b.Scope)
	}
	if len(b.Components) == 0 {
		c.at([]any{"components"}, "a set has at least one component")
	}
	for _, name := range slices.Sorted(maps.Keys(b.Keys)) {
		c.key(name, b.Keys[name])
	}
	for _, name := range slices.Sorted(maps.Keys(b.Stores)) {
		if k := b.Stores[name].Kind; k != StoreSecret && k != StoreBlob {
			c.at([]any{"stores", name, "kind"}, "%q is not a kind of store: it is secret or blob", k)
		} else if sealed := k == StoreSecret; sealed != (c.b.Keys[b.Stores[name].Key].Kind == KeySealing) || !sealed && b.Stores[name].Key != "" {
			c.at([]any{"stores", name, "key"}, "a secret store names the sealing key that it is sealed to, and no other store names one")
		}
		if b.Stores[name].Named != "" && b.Database == nil {
			c.at([]any{"stores", name, "named"}, "a set without a database has no rows")
		}
		if b.Stores[name].Emptied != "" && (b.Database == nil || b.Stores[name].Kind != StoreSecret) {
			c.at([]any{"stores", name, "emptied"}, "rows say of a secret store that it was emptied, and a set without a database has none")
		}
		if !label.MatchString(name) {
			c.at([]any{"stores", name}, "%q is not a lower-case DNS label", name)
		}
	}
	if b.Answers != "" && (b.Scope == ScopePlane || !route.MatchString(b.Answers)) {
		c.at([]any{"answers"}, "%q is not a path at a tenant's host", b.Answers)
	}
	c.database()
	c.recoverAdmin()
	c.machineReader()
	c.backup()
	c.components()
}

func (c *checker) key(name string, k Key) {
	if !label.MatchString(name) {
		c.at([]any{"keys", name}, "%q is not a lower-case DNS label", name)
	}
	if _, ok := halves[k.Kind]; !ok {
		c.at([]any{"keys", name, "kind"}, "%q is not a kind of key: it is random, envelope, sealing, note, snapshot, mark, proof, release, manifest, backup or licence", k.Kind)
	}
	if provisioners[k.Kind] && c.b.Scope != ScopePlane {
		c.at([]any{"keys", name, "kind"}, "a key of kind %s is the plane's: a set that held it could vouch for what is another's", k.Kind)
	}
	if (k.Kind == KeyNote) != (k.Name != "") {
		c.at([]any{"keys", name, "name"}, "a note key signs under a name, and no other key does")
	}
	if _, err := c.setFacts().Text(k.Name); err != nil {
		c.at([]any{"keys", name, "name"}, "%v", err)
	}
}

func (c *checker) database() {
	d := c.b.Database
	if d == nil {
		return
	}
	if len(d.Roles) == 0 {
		c.at([]any{"database", "roles"}, "a database that nobody logs in to is of no use: name a role, or leave the database out")
	}
	for _, name := range slices.Sorted(maps.Keys(d.Roles)) {
		if !roleName.MatchString(name) || name == "owner" || name == "reader" {
			c.at([]any{"database", "roles", name}, "%q is not a role's name: lower-case letters, digits and _, at most 30, not owner and not reader, which fleet makes", name)
		}
		for j, schema := range d.Roles[name].Schemas {
			if !roleName.MatchString(schema) {
				c.at([]any{"database", "roles", name, "schemas", j}, "%q is not a schema's name", schema)
			}
		}
		if n := d.Roles[name].Connections; n < 1 || n > mostConnections {
			c.at([]any{"database", "roles", name, "connections"}, "%d is not between 1 and %d", n, mostConnections)
		}
	}
	if d.Queue != "" && !roleName.MatchString(d.Queue) {
		c.at([]any{"database", "queue"}, "%q is not a schema's name", d.Queue)
	}
	if len(d.Migrate.List) > 0 && len(d.Migrate.Command) == 0 {
		c.at([]any{"database", "migrate", "list"}, "there is nothing to list where nothing is migrated: say the command as well")
	}
	f := c.setFacts()
	f.OwnerURL, f.RoleNames = "file", map[string]string{}
	for name := range d.Roles {
		f.RoleNames[name] = "x"
	}
	c.env([]any{"database", "migrate", "env"}, d.Migrate.Env, f)
}

func (c *checker) recoverAdmin() {
	r := c.b.RecoverAdmin
	if len(r.Command) == 0 && (len(r.Database) > 0 || len(r.Env) > 0) {
		c.at([]any{"recover_admin", "command"}, "it is missing: name what lets an admin in again, or leave recover_admin out")
	}
	if c.b.Scope == ScopePlane && len(r.Command) > 0 {
		c.at([]any{"recover_admin"}, "a set of the plane has no tenant's admin")
	}
	f := c.setFacts()
	f.Recovery = &Recovery{Email: "x", CodeHash: "x", Reason: "x"}
	c.oneOff([]any{"recover_admin"}, r, f)
}

func (c *checker) oneOff(path []any, o OneOff, f Facts) {
	at := func(more ...any) []any { return append(slices.Clone(path), more...) }
	f.DatabaseURLs, f.PublicKeys = map[string]string{}, map[string]string{}
	for j, role := range o.Database {
		if c.b.Database == nil || c.b.Database.Roles[role].Connections == 0 {
			c.at(at("database", j), "the database has no role %q", role)
		}
		f.DatabaseURLs[role] = "x"
	}
	for j, key := range o.PublicKeys {
		if k, ok := c.b.Keys[key]; !ok || !halves[k.Kind] {
			c.at(at("public_keys", j), "there is no key %q with a public half", key)
		}
		f.PublicKeys[key] = "x"
	}
	c.env(at("env"), o.Env, f)
}

func (c *checker) backup() {
	b := c.b.Backup
	if b == nil {
		return
	}
	if c.b.Keys[b.Key].Kind != KeyBackup {
		c.at([]any{"backup", "key"}, "there is no key %q of kind backup", b.Key)
	}
	c.copied()
	f := c.setFacts()
	f.Restore = &Restore{Backup: "x", TakenAt: "x", Checkpoint: "x", Actor: "x", Reason: "x"}
	for name, o := range map[string]OneOff{"verify": b.Verify, "restored": b.Restored} {
		if len(o.Command) == 0 && (len(o.Database) > 0 || len(o.Env) > 0) {
			c.at([]any{"backup", name, "command"}, "it is missing: name what is to be run, or leave %s out", name)
		}
		c.oneOff([]any{"backup", name}, o, f)
	}
}

func (c *checker) copied() {
	b := c.b.Backup.Copied
	if b == nil {
		return
	}
	if c.b.Database == nil {
		c.at([]any{"backup", "copied"}, "the set has no database: leave copied out")
	}
	if logs := c.b.Backup.Checkpoint != ""; (b.Checkpoint != "") != logs || (b.LogKey != "") != logs {
		c.at([]any{"backup", "copied"}, "checkpoint and log_key stand here where backup.checkpoint says how the log's newest checkpoint is read, and only there")
	}
	if b.LogKey != "" && c.b.Keys[b.LogKey].Kind != KeyNote {
		c.at([]any{"backup", "copied", "log_key"}, "there is no key %q of kind note", b.LogKey)
	}
}

func (c *checker) machineReader() {
	r := c.b.MachineReader
	if r == nil {
		return
	}
	if len(r.Command) == 0 {
		c.at([]any{"machine_reader", "command"}, "it is missing: name what reads the machine, or leave machine_reader out")
	}
	if c.b.Scope == ScopePlane {
		c.at([]any{"machine_reader"}, "a set of the plane discovers nothing")
	}
	if _, ok := c.b.Component(r.Client); !ok {
		c.at([]any{"machine_reader", "client"}, "there is no component %q", r.Client)
	}
	c.resources(func(path ...any) []any { return append([]any{"machine_reader"}, path...) }, &c.b.MachineReader.Resources)
	// It is told of nothing else: what it doesn't know it can't give away.
	c.env([]any{"machine_reader", "env"}, r.Env, Facts{Machine: &Machine{}})
}

func (c *checker) components() {
	seen := map[string]bool{}
	prefixes, holders, reporter := map[string]string{}, map[string]string{}, ""
	for i, comp := range c.b.Components {
		at := func(path ...any) []any { return append([]any{"components", i}, path...) }
		if !label.MatchString(comp.Name) {
			c.at(at("name"), "%q is not a lower-case DNS label of at most 32 characters", comp.Name)
		}
		if seen[comp.Name] {
			c.at(at("name"), "%q comes twice", comp.Name)
		}
		seen[comp.Name] = true
		for j, p := range comp.Ports {
			if !label.MatchString(p) || slices.Index(comp.Ports, p) != j {
				c.at(at("ports", j), "%q is not a lower-case DNS label, or comes twice", p)
			}
		}
		if comp.Health.Port != "" && !slices.Contains(comp.Ports, comp.Health.Port) {
			c.at(at("health", "port"), "%q is not one of its ports", comp.Health.Port)
		}
		if (comp.Health.Port == "") != (comp.Health.Path == "") || comp.Health.Path != "" && comp.Health.Path[0] != '/' {
			c.at(at("health"), "it has a port and a path that begins with /, or is left out")
		}
		c.resources(at, &c.b.Components[i].Resources)
		for j, r := range comp.Routes {
			if !route.MatchString(r) {
				c.at(at("routes", j), "%q is not a path prefix", r)
			}
			if other, taken := prefixes[r]; taken {
				c.at(at("routes", j), "%q leads to %s already", r, other)
			}
			prefixes[r] = comp.Name
		}
		if len(comp.Routes) > 0 && !slices.Contains(comp.Ports, "api") {
			c.at(at("routes"), "the gateway reaches a component at its port api, and this one has none")
		}
		for j, name := range comp.After {
			if _, ok := c.b.Component(name); !ok {
				c.at(at("after", j), "there is no component %q", name)
			}
		}
		c.needs(at, comp.Needs)
		if c.b.Scope == ScopeTenant && slices.Contains(comp.Needs.Plane, Registry) {
			if reporter != "" {
				c.at(at("needs", "plane"), "%s reports to the %s already, and one component does so for its set", reporter, Registry)
			}
			reporter = comp.Name
		}
		for what, names := range map[string][]string{"role": comp.Needs.Database, "key": comp.Needs.Keys, "store": comp.Needs.Stores} {
			for _, name := range names {
				if other, taken := holders[what+" "+name]; taken {
					c.at(at("needs"), "%s %q is %s's already, and a secret has one holder: give it one of its own", what, name, other)
				}
				holders[what+" "+name] = comp.Name
			}
		}
		f := c.componentFacts(comp)
		c.env([]any{"env"}, c.b.Env, f)
		c.env(at("env"), comp.Env, f)
	}
	started := 0
	for _, wave := range c.b.Waves() {
		started += len(wave)
	}
	if started < len(c.b.Components) && len(c.faults) == 0 {
		c.at([]any{"components"}, "some components wait for each other: break the circle of after")
	}
}

// resources fills in what a component may take where that is left out.
func (c *checker) resources(at func(...any) []any, r *Resources) {
	if !c.written(at("resources", "memory")) {
		r.Memory = DefaultResources.Memory
	}
	if !c.written(at("resources", "cpu")) {
		r.CPU = DefaultResources.CPU
	}
	if !c.written(at("resources", "pids")) {
		r.PIDs = DefaultResources.PIDs
	}
}

func (c *checker) needs(at func(...any) []any, n Needs) {
	for j, role := range n.Database {
		if c.b.Database == nil || c.b.Database.Roles[role].Connections == 0 {
			c.at(at("needs", "database", j), "the database has no role %q", role)
		}
	}
	for j, key := range n.Keys {
		switch k, ok := c.b.Keys[key]; {
		case !ok:
			c.at(at("needs", "keys", j), "there is no key %q", key)
		case k.Kind == KeyBackup:
			c.at(at("needs", "keys", j), "a backup key is held by no component: who took one over could read every backup")
		case provisioners[k.Kind]:
			c.at(at("needs", "keys", j), "a key of kind %s is the provisioner's: a component that held it could vouch for what is another's", k.Kind)
		}
	}
	for j, key := range n.PublicKeys {
		if k, ok := c.b.Keys[key]; !ok || !halves[k.Kind] {
			c.at(at("needs", "public_keys", j), "there is no key %q with a public half", key)
		}
	}
	for j, s := range n.Stores {
		if _, ok := c.b.Stores[s]; !ok {
			c.at(at("needs", "stores", j), "there is no store %q", s)
		}
	}
	for j, s := range n.ReadsStores {
		if _, ok := c.b.Stores[s]; !ok {
			c.at(at("needs", "reads_stores", j), "there is no store %q", s)
		}
	}
	if c.b.Scope == ScopePlane && (n.IssuingAuthority || n.FirstAdmin || n.Licence) {
		c.at(at("needs"), "a set of the plane has no tenant's authority and no first admin")
	}
	if c.b.Scope == ScopeTenant && n.FrontDoor {
		c.at(at("needs", "front_door"), "the front door belongs to the plane")
	}
	if n.Copied != "" && c.b.Scope == ScopeTenant {
		c.at(at("needs", "copied"), "what is a tenant's is kept in its stores: name a store")
	}
	if n.Copied != "" && !label.MatchString(n.Copied) {
		c.at(at("needs", "copied"), "%q is not a name: it has lower-case letters, digits and hyphens, and begins with a letter", n.Copied)
	}
}

func (c *checker) env(path []any, env map[string]string, f Facts) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		at := append(slices.Clone(path), name)
		if !envName.MatchString(name) {
			c.at(at, "%q is not a variable's name", name)
		}
		if _, err := f.Text(env[name]); err != nil {
			c.at(at, "%v", err)
		}
	}
}

// setFacts are placeholders for what every set has.
func (c *checker) setFacts() Facts {
	return Facts{Plane: "dev", Tenant: "tnt", MarkKeys: "x", ReleaseKeys: "x", LicenceKeys: "x"}
}

// componentFacts are placeholders for exactly what a component needs, so that a template which wants more is found when the blueprint
// is read and not when a tenant is made.
func (c *checker) componentFacts(comp Component) Facts {
	f := c.setFacts()
	placeholders := func(names []string) map[string]string {
		out := map[string]string{}
		for _, n := range names {
			out[n] = "x"
		}
		return out
	}
	f.Addresses, f.DatabaseURLs = placeholders(comp.Ports), placeholders(comp.Needs.Database)
	f.KeyFiles, f.PublicKeys = placeholders(comp.Needs.Keys), placeholders(comp.Needs.PublicKeys)
	f.StoreDirs, f.PlaneAddresses = placeholders(slices.Concat(comp.Needs.Stores, comp.Needs.ReadsStores)), placeholders(comp.Needs.Plane)
	f.PeerAddresses = map[string]map[string]string{}
	for _, peer := range c.b.Components {
		f.PeerAddresses[peer.Name] = placeholders(peer.Ports)
	}
	if comp.Needs.IssuingAuthority {
		f.Authority = "x"
	}
	if comp.Needs.FirstAdmin {
		f.FirstAdmin = &FirstAdmin{}
	}
	if comp.Needs.FrontDoor {
		f.Front = &Front{}
	}
	if r := c.b.MachineReader; r != nil && r.Client == comp.Name {
		f.Machine = &Machine{}
	}
	return f
}
