package additive

import (
	"maps"
	"slices"
	"strings"
)

// comparison is what a database was, what it is, and what the release before knows of it.
type comparison struct {
	base, before, after catalogue
	// stepwise says that it ran outside of any transaction, as what makes an index while others write has to.
	stepwise bool
	add      func(rule, format string, args ...any)
}

// compare names what changed for whoever knows the base. What was made since the base is nobody's yet, but for what it is a part of.
func compare(base, before, after catalogue, stepwise bool, add func(rule, format string, args ...any)) {
	c := comparison{base, before, after, stepwise, add}
	for k, was := range before {
		now, there := after[k]
		_, known := base[k]
		switch {
		case !known:
			if there && c.concerns(k, now) && grows[k.class] && !was.like(now, slices.Sorted(maps.Keys(now.facts))...) {
				c.arrived(k, now)
			}
		case there:
			c.changed(k, was, now)
		case c.wholeStays(was):
			c.gone(k, was)
		}
	}
	for k, now := range after {
		if _, was := before[k]; !was && c.concerns(k, now) {
			c.arrived(k, now)
		}
	}
}

// grows are the kinds of things that arrive harmless and may become what they couldn't have arrived as: a column loses its default.
var grows = map[string]bool{"column": true, "policy": true, "trigger": true, "rule": true, "setting": true}

// concerns says whether a thing is a part of what the release before knows, or of everything.
func (c comparison) concerns(k key, t thing) bool {
	_, known := c.base[t.whole]
	_, isPart := c.base[key{"relation", t.text("child")}]
	return known || t.whole == key{} || k.class == "part" && isPart
}

// wholeStays says whether what a thing was a part of is there: a part goes with the whole.
func (c comparison) wholeStays(was thing) bool {
	_, there := c.after[was.whole]
	return there || was.whole == key{}
}

var kinds = map[string]string{"r": "table", "p": "table", "v": "view", "m": "materialized view", "S": "sequence", "f": "foreign table", "c": "type"}

// gone names what is not there any more. A check or an index that is no promise less narrows nothing.
func (c comparison) gone(k key, was thing) {
	switch k.class {
	case "schema":
		c.add("drop-schema", "it drops %s", was.name)
	case "relation":
		c.add("drop-table", "it drops %s %s", kinds[was.text("kind")], was.name)
	case "part":
		if _, there := c.after[key{"relation", was.text("child")}]; there {
			c.add("detach-part", "it takes table %s, and its rows with it", was.name)
		}
	case "column":
		c.add("drop-column", "it drops column %s", was.name)
	case "constraint":
		switch {
		case c.another(k, was, c.after, "own", "is"):
		case was.is("one"):
			c.add("drop-unique", "it drops constraint %s, which ON CONFLICT asks for: %s", was.name, was.text("is"))
		case was.is("acts"):
			c.add("drop-action", "it drops constraint %s, which changes rows that refer to others: %s", was.name, was.text("is"))
		}
	case "index":
		if was.is("unique") && !was.is("constrains") && !c.another(k, was, c.after, "unique", "is", "valid") {
			c.add("drop-unique", "it drops unique index %s, which ON CONFLICT asks for", was.name)
		}
	case "policy":
		if was.is("permissive") {
			c.add("drop-policy", "it drops policy %s, by which rows are seen", was.name)
		}
	case "grant":
		c.add("revoke", "it takes %s away", was.name)
	case "trigger":
		c.add("drop-trigger", "it drops trigger %s", was.name)
	case "rule":
		c.add("drop-rule", "it drops rule %s", was.name)
	case "function":
		c.add("drop-function", "it drops function %s, or gives it other arguments", was.name)
	case "type":
		c.add("drop-type", "it drops type %s", was.name)
	case "value":
		c.add("drop-value", "it drops value %s", was.name)
	case "setting":
		c.add("change-setting", "it takes the setting %s away", was.name)
	}
}

// another says whether there is another thing with the same facts and of the same whole.
func (c comparison) another(k key, t thing, among catalogue, facts ...string) bool {
	for other, candidate := range among {
		if other.class == k.class && other != k && candidate.whole == t.whole && candidate.like(t, facts...) {
			return true
		}
	}
	return false
}

// changed names what is there and is not what it was.
func (c comparison) changed(k key, was, now thing) {
	if was.text("own") != now.text("own") {
		c.add("rename", "it renames %s %s to %s", k.class, was.name, now.name)
	}
	if was.text("owner") != now.text("owner") {
		c.add("change-owner", "it gives %s %s to another owner, %s", k.class, now.name, now.text("owner"))
	}
	switch k.class {
	case "relation":
		c.changedRelation(was, now)
	case "column", "type":
		c.changedValues(k, was, now)
	case "function":
		c.changedFunction(was, now)
	case "index":
		whole := now.whole
		if !was.like(now, "file") && c.before[whole].like(c.after[whole], "file") {
			c.add("index-holds-writers", "it builds index %s anew, and writers wait until it is done: REINDEX CONCURRENTLY, after -- +goose NO TRANSACTION", now.name)
		}
	case "policy":
		if !was.like(now, "own", "permissive", "command", "roles", "using", "check") {
			c.add("change-policy", "it changes policy %s", now.name)
		}
	case "constraint":
		if !was.like(now, "is") {
			c.add("change-constraint", "it changes constraint %s to %s", now.name, now.text("is"))
		}
	case "sequence":
		if !was.like(now, "is", "file") {
			c.add("change-sequence", "it changes what sequence %s gives, or where it goes on", now.name)
		}
	case "part":
		if !was.like(now, "bounds", "pending") {
			c.add("detach-part", "it changes which rows are in table %s", now.name)
		}
	case "trigger", "rule":
		switch {
		case !was.like(now, "is"):
			c.add("change-"+k.class, "it changes %s %s", k.class, now.name)
		case !was.like(now, "enabled"):
			c.add("change-"+k.class, "it changes when %s %s is in force", k.class, now.name)
		}
	case "setting":
		if !was.like(now, "is") {
			c.add("change-setting", "it changes the setting %s", now.name)
		}
	}
}

func (c comparison) changedRelation(was, now thing) {
	if !was.like(now, "file") && was.text("kind") != "S" {
		c.add("rewrites-table", "it writes table %s anew, or empties it, and nobody reads it meanwhile", now.name)
	}
	switch {
	case now.is("secured") && !was.is("secured") || now.is("forced") && !was.is("forced"):
		c.add("row-security", "it switches row-level security on for table %s", now.name)
	case !was.like(now, "secured", "forced"):
		c.add("row-security", "it switches row-level security off for table %s, by which rows of others are hidden", now.name)
	}
	if !was.like(now, "is") {
		c.add("change-view", "it changes what %s %s shows", kinds[now.text("kind")], now.name)
	}
}

// changedValues names what may be in a column, or in a domain, that was not, and the other way round.
func (c comparison) changedValues(k key, was, now thing) {
	if !was.like(now, "type") {
		c.add("change-type", "it changes %s %s from %s to %s", k.class, now.name, was.text("type"), now.text("type"))
	}
	if now.is("required") && !was.is("required") {
		c.add("set-not-null", "it demands a value of %s %s, and reads the whole table to see that each has one", k.class, now.name)
	}
	switch {
	case !was.like(now, "generated"):
		c.add("change-generated", "it changes whether column %s is computed", now.name)
	case was.facts["default"] != nil && now.facts["default"] == nil:
		c.add("drop-default", "it takes the default of %s %s away", k.class, now.name)
	case !was.like(now, "default"):
		c.add("change-default", "it changes the default of %s %s to %s", k.class, now.name, now.text("default"))
	}
	const always, none = "a", ""
	switch now.text("identity") {
	case was.text("identity"):
	case always:
		c.add("change-identity", "it has column %s take no value that is given", now.name)
	case none:
		c.add("change-identity", "it has column %s make no value any more", now.name)
	}
}

func (c comparison) changedFunction(was, now thing) {
	if !was.like(now, "result") {
		c.add("change-type", "it changes what function %s returns", now.name)
	}
	var changed []string
	for _, fact := range []string{"body", "language", "arguments", "security", "strictness", "settings", "volatility", "parallel", "leakproof"} {
		if !was.like(now, fact) {
			changed = append(changed, fact)
		}
	}
	if len(changed) > 0 {
		c.add("change-function", "it changes function %s: its %s", now.name, strings.Join(changed, ", "))
	}
}

// arrived names what a thing that was there got, and that not everything fits into any more, or that holds its writers up.
func (c comparison) arrived(k key, now thing) {
	switch k.class {
	case "column":
		switch {
		case now.is("composite"):
			c.add("change-type", "it adds %s to a type, which the release before writes without", now.name)
		case now.is("required") && now.facts["default"] == nil && now.text("identity") == "" && now.text("generated") == "":
			c.add("required-column", "it adds column %s, which demands a value that the release before doesn't give", now.name)
		}
	case "constraint":
		c.add("new-constraint", "it adds constraint %s: %s", now.name, now.text("is"))
	case "index":
		c.arrivedIndex(k, now)
	case "part":
		c.arrivedPart(now)
	case "policy":
		if !now.is("permissive") {
			c.add("change-policy", "it adds policy %s, which hides rows", now.name)
		}
	case "trigger", "rule":
		c.add("new-"+k.class, "it adds %s %s", k.class, now.name)
	case "setting":
		c.add("change-setting", "it sets %s to %s", now.name, now.text("is"))
	}
}

func (c comparison) arrivedIndex(k key, now thing) {
	if now.is("constrains") {
		return // its constraint was named
	}
	if now.is("unique") && !c.another(k, now, c.before, "unique", "is") {
		c.add("new-constraint", "it adds unique index %s", now.name)
	}
	// Where a column got another type, its index may have another id and stay the file that it was.
	if !(c.stepwise && now.is("stepwise")) && !c.another(k, now, c.before, "file") {
		c.add("index-holds-writers", "it makes index %s, and writers wait until it is done: CREATE INDEX CONCURRENTLY, after -- +goose NO TRANSACTION", now.name)
	}
}

// arrivedPart names a part that was a table of its own, and one that has what it is of look through its other rows.
func (c comparison) arrivedPart(now thing) {
	_, known := c.base[key{"relation", now.text("child")}]
	rest, hasRest := c.base[key{"relation", now.text("rest")}]
	switch {
	case known:
		c.add("attach-part", "it makes table %s, reads all of it to see that it fits, and takes nothing else into it from then on: %s", now.name, now.text("bounds"))
	case hasRest && now.text("child") != now.text("rest"):
		c.add("attach-part", "it makes table %s, and reads all of %s to see that nothing of it belongs there", now.name, rest.name)
	}
}
