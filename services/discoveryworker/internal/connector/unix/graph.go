package unix

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/clip"
)

// Types of resources.
const (
	typeHost    = "host"
	typeUser    = "user"
	typeGroup   = "group"
	typeCommand = "command"
	typeKey     = "ssh_key"
)

// Names of entitlements.
const (
	entLogin  = "login"
	entRoot   = "root"
	entBecome = "become"
	entMember = "member"
	entUse    = "use"
)

// maxGaps bounds the gaps named one by one in a scope.
const maxGaps = 50

// marshal makes equal records equal bytes.
var marshal = proto.MarshalOptions{Deterministic: true}

// graph collects records, each once, in the order in which they are handed over: resources before what names them.
type graph struct {
	now        time.Time
	host       *discoveryv1.ResourceRef
	list       []*discoveryv1.Record
	seen       map[string]int
	gaps       map[string][]string
	unnamedGap map[string]int
}

func newGraph(host string, m *machine) *graph {
	g := &graph{
		now:        time.Now(),
		host:       ref(typeHost, host),
		seen:       map[string]int{},
		gaps:       map[string][]string{},
		unnamedGap: map[string]int{},
	}
	g.resource(ScopeAccounts, &discoveryv1.Resource{
		Type: typeHost, ExternalId: g.host.GetExternalId(), DisplayName: g.host.GetExternalId(),
		Attributes: map[string]string{"host_name": m.hostName},
	})
	g.entitlement(ScopeAccounts, g.host, entRoot, permission, "full control of the machine")
	return g
}

const (
	permission = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_PERMISSION
	membership = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_MEMBERSHIP
	assumption = discoveryv1.EntitlementPurpose_ENTITLEMENT_PURPOSE_ASSUMPTION
)

// records are all that was collected.
func (g *graph) records() []*discoveryv1.Record { return g.list }

// gap names something that could not be read.
func (g *graph) gap(scope, reason string) {
	reason = clip.Text(reason, 1000)
	if slices.Contains(g.gaps[scope], reason) {
		return
	}
	if len(g.gaps[scope]) < maxGaps {
		g.gaps[scope] = append(g.gaps[scope], reason)
		return
	}
	g.unnamedGap[scope]++
	last := strconv.Itoa(g.unnamedGap[scope]) + " more could not be read"
	if g.unnamedGap[scope] == 1 {
		g.gaps[scope] = append(g.gaps[scope], last)
	} else {
		g.gaps[scope][maxGaps] = last
	}
}

// add appends a record unless one of the same key is there, and answers the one that is.
func (g *graph) add(key string, r *discoveryv1.Record) *discoveryv1.Record {
	if i, ok := g.seen[key]; ok {
		return g.list[i]
	}
	g.seen[key] = len(g.list)
	g.list = append(g.list, r)
	return r
}

// resource adds a resource and answers its name.
func (g *graph) resource(scope string, r *discoveryv1.Resource) *discoveryv1.ResourceRef {
	name := ref(r.GetType(), r.GetExternalId())
	r.ExternalId = name.GetExternalId()
	r.DisplayName = clip.Text(r.GetDisplayName(), 1024)
	for k, v := range r.GetAttributes() {
		if v == "" {
			delete(r.Attributes, k)
			continue
		}
		r.Attributes[k] = clip.Text(v, 4096)
	}
	g.add("r\x00"+refKey(name), &discoveryv1.Record{Scope: scope, Kind: &discoveryv1.Record_Resource{Resource: r}})
	return name
}

// entitlement adds an entitlement and answers its name.
func (g *graph) entitlement(scope string, on *discoveryv1.ResourceRef, name string, purpose discoveryv1.EntitlementPurpose, description string) *discoveryv1.EntitlementRef {
	e := &discoveryv1.EntitlementRef{Resource: on, Name: short(name, 200)}
	g.add("e\x00"+entKey(e), &discoveryv1.Record{Scope: scope, Kind: &discoveryv1.Record_Entitlement{Entitlement: &discoveryv1.Entitlement{
		Resource: on, Name: e.GetName(), Purpose: purpose, Description: clip.Text(description, 1000),
	}}})
	return e
}

// grant gives an entitlement for a reason; given again, the reasons are joined.
func (g *graph) grant(scope string, who *discoveryv1.ResourceRef, what *discoveryv1.EntitlementRef, reason string) {
	key := "g\x00" + refKey(who) + "\x00" + entKey(what)
	r := g.add(key, &discoveryv1.Record{Scope: scope, Kind: &discoveryv1.Record_Grant{Grant: &discoveryv1.Grant{Principal: who, Entitlement: what}}})
	grant := r.GetGrant()
	switch {
	case grant.GetReason() == "":
		grant.Reason = clip.Text(reason, 1000)
	case !strings.Contains(grant.GetReason(), reason):
		grant.Reason = clip.Text(grant.GetReason()+"; "+reason, 1000)
	}
}

// expand makes every holder of one entitlement able to come by another, by an act.
func (g *graph) expand(scope string, from, to *discoveryv1.EntitlementRef, reason string) {
	g.add("x\x00"+entKey(from)+"\x00"+entKey(to), &discoveryv1.Record{Scope: scope, Kind: &discoveryv1.Record_Expansion{Expansion: &discoveryv1.Expansion{
		From: from, To: to, Assumption: true, Reason: clip.Text(reason, 1000),
	}}})
}

// become is the entitlement of taking a user's or a group's place.
func (g *graph) become(on *discoveryv1.ResourceRef) *discoveryv1.EntitlementRef {
	if on.GetType() == typeGroup {
		return g.entitlement(ScopeSudoers, on, entBecome, assumption, "run programs with this group, as sudo -g does")
	}
	return &discoveryv1.EntitlementRef{Resource: on, Name: entBecome}
}

func ref(resourceType, externalID string) *discoveryv1.ResourceRef {
	return &discoveryv1.ResourceRef{Type: resourceType, ExternalId: short(externalID, 1024)}
}

func refKey(r *discoveryv1.ResourceRef) string { return r.GetType() + "\x00" + r.GetExternalId() }

func entKey(e *discoveryv1.EntitlementRef) string {
	return refKey(e.GetResource()) + "\x00" + e.GetName()
}

// short is clip.Text for texts that must stay different from each other: a shortened one ends in a digest of the whole.
func short(s string, n int) string {
	if utf8.ValidString(s) && utf8.RuneCountInString(s) <= n {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	mark := "…" + hex.EncodeToString(sum[:8])
	runes := []rune(strings.ToValidUTF8(s, "\uFFFD"))
	return string(runes[:min(len(runes), n-utf8.RuneCountInString(mark))]) + mark
}

func mapsKeys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }
