package plan

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
)

// Open reads a stored plan, and refuses one whose text isn't what its hash is of: who applies a hash means that very text.
func Open(s *registryv1.StoredPlan) (*registryv1.Plan, error) {
	sum := sha256.Sum256(s.GetDocument())
	if s.GetHash() != "sha256:"+hex.EncodeToString(sum[:]) {
		return nil, fault.New(fault.FailedPrecondition, "the plan that the registry answered is not the one with the hash %s: don't apply it, and look who changed it", s.GetHash())
	}
	p := &registryv1.Plan{}
	if err := proto.Unmarshal(s.GetDocument(), p); err != nil {
		return nil, fmt.Errorf("read the plan %s: %w", s.GetHash(), err)
	}
	return p, nil
}

// Read reads the plan that somebody names by its hash, whole or its beginning, with or without `sha256:`, and refuses any other: what is shown,
// approved and carried out is what was typed, whatever the registry answers.
func Read(ctx context.Context, plans registryv1.PlanServiceClient, named string) (*registryv1.StoredPlan, *registryv1.Plan, error) {
	const algorithm = "sha256:"
	hash := algorithm + strings.TrimPrefix(strings.ToLower(named), algorithm)
	res, err := plans.GetPlan(ctx, &registryv1.GetPlanRequest{Hash: hash})
	if err != nil {
		return nil, nil, fault.FromRPC(err)
	}
	if !strings.HasPrefix(res.GetPlan().GetHash(), hash) {
		return nil, nil, fault.New(fault.FailedPrecondition, "asked for the plan %s the registry answered %s: don't apply it, and look who changed the registry", hash, res.GetPlan().GetHash())
	}
	read, err := Open(res.GetPlan())
	return res.GetPlan(), read, err
}

// Recheck makes a stored plan anew, from its own selectors and the world as it is now, and refuses it where anything differs, naming
// each difference. begun are the tenants whose operation of this plan was begun already (Target): what differs of them, the plan did.
func (p *Planner) Recheck(ctx context.Context, s *registryv1.StoredPlan, begun map[string]bool) error {
	planned, err := Open(s)
	if err != nil {
		return err
	}
	if planned.GetPlane() != p.Plane {
		return fault.New(fault.FailedPrecondition, "the plan is for plane %s and this is %s: planes are sealed, make it at the plane that it is for", planned.GetPlane(), p.Plane)
	}
	now, err := p.again(ctx, planned, begun)
	if err != nil {
		return err
	}
	if err := p.stands(ctx, planned, now, begun); err != nil {
		return err
	}
	if d := Differences(planned, now, begun); len(d) > 0 {
		return fault.New(fault.FailedPrecondition, "the world is not as it was when the plan was made, make it anew: %s", strings.Join(d, "; "))
	}
	return nil
}

// stands holds what the platform planned against what it is now: a change that was planned once is not planned again to be compared, for
// it would be another one.
func (p *Planner) stands(ctx context.Context, planned, now *registryv1.Plan, begun map[string]bool) error {
	if p.Stacks == nil {
		return nil
	}
	by := map[string]*registryv1.StackChange{}
	for _, t := range planned.GetTenants() {
		by[Target(t)] = t.GetStackChange()
		if begun[Target(t)] || t.GetStackChange() == nil {
			continue
		}
		if err := p.Stacks.Stands(ctx, t); err != nil {
			return err
		}
	}
	for _, t := range now.GetTenants() {
		t.StackChange = by[Target(t)]
	}
	return nil
}

// again makes the plan that the same words would make now.
func (p *Planner) again(ctx context.Context, planned *registryv1.Plan, begun map[string]bool) (*registryv1.Plan, error) {
	selection, err := ParseSelection(planned.GetSelectors())
	if err != nil {
		return nil, err
	}
	wait := planned.GetWait().AsDuration()
	r := Request{Kind: planned.GetKind(), Selection: selection, Reason: planned.GetReason(), AcceptedTiers: planned.GetAcceptedTiers(), Wait: &wait, again: true}
	if planned.GetRollout() != nil {
		r.Waves = rings
	}
	done := map[string]bool{}
	for _, t := range planned.GetTenants() {
		if begun[Target(t)] {
			done[t.GetSlug()], done[t.GetTenantId()] = true, true
			continue
		}
		if planned.GetKind() == restore {
			r.Restore = &Restore{From: cmp.Or(t.GetRestore().GetDirectory(), t.GetRestore().GetBackup()), Replace: t.GetRestore().GetReplace()}
		}
		if planned.GetKind() == provision || planned.GetKind() == upgrade || planned.GetKind() == downgrade {
			r.Release = t.GetReleaseTo()
		}
		if t.GetTenantId() == "" {
			r.Tier, r.Labels, r.Account, r.CopyOf = t.GetIsolationTier(), t.GetLabels(), t.GetAccount(), t.GetCopyOf()
			// One that is called as its slug was given no name: each of several is called as its own.
			if t.GetDisplayName() != t.GetSlug() {
				r.DisplayName = t.GetDisplayName()
			}
		}
	}
	r.Selection.Tenants = slices.DeleteFunc(r.Selection.Tenants, func(name string) bool { return done[name] })
	if len(begun) >= len(planned.GetTenants()) || len(r.Selection.written()) == 0 {
		// Nothing is left of it to be begun: there is nothing to compare but where it is carried out.
		where, err := p.Platform.Where(ctx)
		now := proto.CloneOf(planned)
		now.Platform, now.Account, now.Region = p.Platform.Name(), where.Account, where.Region
		now.Blueprint, now.BlueprintDigest, now.Tenants = p.Blueprint.Name, p.Blueprint.Digest, nil
		return now, err
	}
	only := *p
	only.Stacks = nil
	made, err := only.Make(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("the plan can't be made any more as it was: %w", err)
	}
	goneOn(planned, made.Plan)
	return made.Plan, nil
}

// goneOn has a log that went on be no difference: that more is given up than was known when a restore was planned, the plan says. That it is less is
// one, for then the log isn't the one that was looked at.
func goneOn(planned, now *registryv1.Plan) {
	for i, t := range now.GetTenants() {
		if r := t.GetRestore(); r != nil && i < len(planned.GetTenants()) && r.GetLostEntries() > planned.GetTenants()[i].GetRestore().GetLostEntries() {
			r.LostEntries = planned.GetTenants()[i].GetRestore().GetLostEntries()
		}
	}
}

// rings are waves of one tenant each, called by its ring: how large the waves were to be a plan doesn't say, and need not be known to see that
// a tenant is in the wrong one.
func rings(chosen []*registryv1.TenantStatus) (*registryv1.RolloutPolicy, error) {
	p := &registryv1.RolloutPolicy{}
	for _, s := range chosen {
		p.Waves = append(p.Waves, &registryv1.Wave{Name: RingOf(s.GetTenant()), TenantIds: []string{s.GetTenant().GetId()}})
	}
	return p, nil
}

// ringIn is the ring by which a rollout has a tenant: a wave is called by it, or by it and a number.
func ringIn(p *registryv1.RolloutPolicy, tenant string) string {
	for _, w := range p.GetWaves() {
		if slices.Contains(w.GetTenantIds(), tenant) {
			name, _, _ := strings.Cut(w.GetName(), "-")
			return name
		}
	}
	return ""
}

// Differences says, a sentence each, what of a plan isn't so any more.
func Differences(planned, now *registryv1.Plan, begun map[string]bool) []string {
	var out []string
	differ := func(what, was, is string) {
		if was != is {
			out = append(out, fmt.Sprintf("%s is %s, the plan has %s", what, orNone(is), orNone(was)))
		}
	}
	differ("the plane", planned.GetPlane(), now.GetPlane())
	differ("the platform", planned.GetPlatform(), now.GetPlatform())
	differ("the account", planned.GetAccount(), now.GetAccount())
	differ("the region", planned.GetRegion(), now.GetRegion())
	differ("the blueprint", planned.GetBlueprint(), now.GetBlueprint())
	differ("the blueprint's digest", planned.GetBlueprintDigest(), now.GetBlueprintDigest())
	by := map[string]*registryv1.TenantChange{}
	for _, t := range now.GetTenants() {
		by[Target(t)] = t
	}
	for _, was := range planned.GetTenants() {
		is, there := by[Target(was)]
		delete(by, Target(was))
		switch {
		case begun[Target(was)]:
		case !there:
			out = append(out, fmt.Sprintf("the selectors don't choose tenant %s any more", was.GetSlug()))
		default:
			differ("the ring of tenant "+is.GetSlug(), ringIn(planned.GetRollout(), was.GetTenantId()), ringIn(now.GetRollout(), is.GetTenantId()))
			out = append(out, tenantDifferences(was, is)...)
		}
	}
	for name, t := range by {
		if !begun[name] {
			out = append(out, fmt.Sprintf("the selectors choose tenant %s too, which is not in the plan", t.GetSlug()))
		}
	}
	slices.Sort(out)
	return out
}

func tenantDifferences(was, is *registryv1.TenantChange) []string {
	var out []string
	differ := func(what, was, now string) {
		if was != now {
			out = append(out, fmt.Sprintf("the %s of tenant %s is %s, the plan has %s", what, is.GetSlug(), orNone(now), orNone(was)))
		}
	}
	differ("slug", was.GetSlug(), is.GetSlug())
	differ("isolation tier", tierWord(was.GetIsolationTier()), tierWord(is.GetIsolationTier()))
	differ("account", was.GetAccount(), is.GetAccount())
	differ("tenant that may be copied", was.GetCopyOf(), is.GetCopyOf())
	differ("state", word(was.GetStateFrom()), word(is.GetStateFrom()))
	differ("present release", was.GetReleaseFrom(), is.GetReleaseFrom())
	differ("release to come", was.GetReleaseTo(), is.GetReleaseTo())
	differ("last operation", was.GetAfterOperation(), is.GetAfterOperation())
	differ("list of migrations", strings.Join(was.GetMigrations(), " "), strings.Join(is.GetMigrations(), " "))
	differ("list of restarts", strings.Join(was.GetRestarts(), " "), strings.Join(is.GetRestarts(), " "))
	differ("change set", was.GetStackChange().GetChangeSet(), is.GetStackChange().GetChangeSet())
	differ("backup", was.GetRestore().GetBackup(), is.GetRestore().GetBackup())
	differ("manifest of the backup", was.GetRestore().GetManifestDigest(), is.GetRestore().GetManifestDigest())
	differ("tenant that is copied", was.GetRestore().GetCopiedFrom(), is.GetRestore().GetCopiedFrom())
	differ("number of log entries that are lost", fmt.Sprint(was.GetRestore().GetLostEntries()), fmt.Sprint(is.GetRestore().GetLostEntries()))
	differ("list of steps", strings.Join(was.GetSteps(), " "), strings.Join(is.GetSteps(), " "))
	if len(out) == 0 && !proto.Equal(was, is) {
		out = append(out, fmt.Sprintf("what is done to tenant %s is not what the plan says", is.GetSlug()))
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
