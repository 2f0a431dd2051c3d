package blueprint

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	tableName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}\.[a-z][a-z0-9_]{0,62}$`)
	timeout   = regexp.MustCompile(`^[0-9]+(us|ms|s|min|h|d)?$`)
)

// rules are what new blueprints are held to besides: what would be read as something else than was meant, or fail when a set is made. Blueprints that
// releases were made by before a rule came are not, so that sets of theirs can be started, and left.
func (c *checker) rules() {
	b := c.b
	if b.Answers != "" && route.MatchString(b.Answers) {
		if ambiguous(b.Answers) {
			c.at([]any{"answers"}, "%q is not a path at a tenant's host", b.Answers)
		} else if !slices.ContainsFunc(b.Components, func(comp Component) bool { return leadsTo(comp.Routes, b.Answers) }) {
			c.at([]any{"answers"}, "no component's routes lead to %q", b.Answers)
		}
	}
	if d := b.Database; d != nil {
		for _, name := range slices.Sorted(maps.Keys(d.Roles)) {
			for field, is := range map[string]string{"statement_timeout": d.Roles[name].StatementTimeout, "idle_session_timeout": d.Roles[name].IdleSessionTimeout} {
				if is != "" && !timeout.MatchString(is) {
					c.at([]any{"database", "roles", name, field}, "%q is no time as PostgreSQL writes one: 30s, 5min, 500ms, or 0 for none", is)
				}
			}
		}
	}
	c.oneOffRules("let an admin in again", b.RecoverAdmin, "recover_admin")
	if r := b.MachineReader; r != nil {
		c.bounds([]any{"machine_reader"}, r.Resources)
	}
	c.backupRules()
	c.componentRules()
}

// oneOffRules refuse a program that isn't named, where something else is said of it. Where it has database roles or env, check does.
func (c *checker) oneOffRules(what string, o OneOff, path ...any) {
	if node, _, _ := c.find(path); len(o.Command)+len(o.Database)+len(o.Env) == 0 && node != nil && len(node.Content) > 0 {
		c.at(append(slices.Clone(path), "command"), "it is missing: name what is run to %s, or leave %v out", what, path[len(path)-1])
	}
}

func (c *checker) backupRules() {
	b := c.b.Backup
	if b == nil {
		return
	}
	c.oneOffRules("verify a restored database", b.Verify, "backup", "verify")
	c.oneOffRules("end what must not outlive a restore", b.Restored, "backup", "restored")
	if b.Copied == nil {
		return
	}
	for j, table := range b.Copied.Empty {
		if !tableName.MatchString(table) {
			c.at([]any{"backup", "copied", "empty", j}, "%q is not a table, schema.table", table)
		}
	}
	for j, statement := range b.Copied.Statements {
		if statement == "" {
			c.at([]any{"backup", "copied", "statements", j}, "it is empty")
		}
	}
}

func (c *checker) componentRules() {
	taken, alone := Taken(c.b.Scope), map[string]string{}
	for i, comp := range c.b.Components {
		at := func(path ...any) []any { return append([]any{"components", i}, path...) }
		if whose := taken[comp.Name]; whose != "" {
			c.at(at("name"), "%q is the name of %s: call the component otherwise", comp.Name, whose)
		}
		if comp.Health.Port == "" && comp.Health.Path == "" && c.written(at("health")) {
			c.at(at("health"), "it has a port and a path that begins with /, or is left out")
		}
		c.bounds(at(), comp.Resources)
		for j, r := range comp.Routes {
			if route.MatchString(r) && ambiguous(r) {
				c.at(at("routes", j), "%q is not a path prefix", r)
			}
		}
		for field, needs := range map[string]bool{"issuing_authority": comp.Needs.IssuingAuthority, "first_admin": comp.Needs.FirstAdmin, "front_door": comp.Needs.FrontDoor} {
			if other := alone[field]; needs && other != "" {
				c.at(at("needs", field), "%s has that already, and one component of a set does", other)
			}
			if needs {
				alone[field] = comp.Name
			}
		}
		for j, s := range comp.Needs.ReadsStores {
			if _, is := c.b.Stores[s]; is && !slices.ContainsFunc(c.b.Components, func(other Component) bool { return slices.Contains(other.Needs.Stores, s) }) {
				c.at(at("needs", "reads_stores", j), "no component writes the store %q: one has it among its stores", s)
			}
		}
		for j, service := range comp.Needs.Plane {
			_, own := c.b.Component(service)
			if c.b.Scope == ScopePlane && !own || c.b.Scope == ScopeTenant && !slices.Contains(planeComponents(), service) {
				c.at(at("needs", "plane", j), "the control plane has no service %q: it has %s", service, strings.Join(planeComponents(), ", "))
			}
		}
	}
}

// leadsTo says whether one of the gateway's path prefixes leads to a path.
func leadsTo(routes []string, path string) bool {
	return slices.ContainsFunc(routes, func(r string) bool { return strings.HasPrefix(path, r) })
}

// ambiguous says whether a path has an empty part, or one that means another: the gateway leads no request there.
func ambiguous(path string) bool {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, part := range parts {
		if part == "." || part == ".." || part == "" && i < len(parts)-1 {
			return true
		}
	}
	return false
}

// The least that a process can live with, and the most that is no slip of the pen.
const (
	leastMemory, mostMemory = 16 << 20, 64 << 30
	leastCPU, mostCPU       = 0.05, 64
	leastPIDs, mostPIDs     = 16, 32768
)

func (r Resources) beyond() (memory, cpu, pids bool) {
	return r.Memory < leastMemory || r.Memory > mostMemory, !(r.CPU >= leastCPU && r.CPU <= mostCPU), r.PIDs < leastPIDs || r.PIDs > mostPIDs
}

// bounds checks what a process may take.
func (c *checker) bounds(path []any, r Resources) {
	at := func(field string) []any { return append(slices.Clone(path), "resources", field) }
	memory, cpu, pids := r.beyond()
	if memory {
		c.at(at("memory"), "it is not between 16MiB and 64GiB")
	}
	if cpu {
		c.at(at("cpu"), "%v is not between %v and %v", r.CPU, leastCPU, mostCPU)
	}
	if pids {
		c.at(at("pids"), "%d is not between %d and %d", r.PIDs, leastPIDs, mostPIDs)
	}
}

// rebound has what a process may take be the default where it is beyond its bounds, as fleets did of bounds that were 0, or written by an alias: a
// process that may be none is never started.
func (b *Blueprint) rebound() {
	mend := func(r *Resources) {
		memory, cpu, pids := r.beyond()
		if memory {
			r.Memory = DefaultResources.Memory
		}
		if cpu {
			r.CPU = DefaultResources.CPU
		}
		if pids {
			r.PIDs = DefaultResources.PIDs
		}
	}
	for i := range b.Components {
		mend(&b.Components[i].Resources)
	}
	if b.MachineReader != nil {
		mend(&b.MachineReader.Resources)
	}
}
