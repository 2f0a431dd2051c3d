package plan_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/tools/fleet/internal/plan"
)

var update = flag.Bool("update", false, "write what is answered as what is wanted")

const (
	older = "1.3.0@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	newer = "1.4.0@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	acme  = "tnt_01m8jjsjw9e9ht20ggwbmrk2j7"
)

// made is a plan of each shape: a tenant that is upgraded, alone and in a rollout, one that is made, one that leaves.
func made() map[string]*registryv1.Plan {
	base := func(kind registryv1.OperationKind, t *registryv1.TenantChange) *registryv1.Plan {
		return &registryv1.Plan{
			Plane: "prod", Platform: "local", Account: "box-1", Region: "local", Blueprint: "accessos",
			BlueprintDigest: "sha256:" + strings.Repeat("c", 64), Kind: kind, Selectors: []string{"--label ring=canary", "--tenant acme"},
			Tenants: []*registryv1.TenantChange{t}, Reason: "security update",
		}
	}
	active, suspended := registryv1.TenantState_TENANT_STATE_ACTIVE, registryv1.TenantState_TENANT_STATE_SUSPENDED
	return map[string]*registryv1.Plan{
		"upgrade": base(registryv1.OperationKind_OPERATION_KIND_UPGRADE, &registryv1.TenantChange{
			TenantId: acme, Slug: "acme", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateFrom: active, StateTo: active,
			ReleaseFrom: older, ReleaseTo: newer, Migrations: []string{"iam/00007_seats", "audit/00004_index"}, Restarts: []string{"iam", "audit"},
			Steps: []string{"fetch", "migrate", "start", "confirm"}, AfterOperation: "opr_01m8jjsjwae9htj72ad844mh8z",
		}),
		"rollout": func() *registryv1.Plan {
			p := base(registryv1.OperationKind_OPERATION_KIND_UPGRADE, &registryv1.TenantChange{
				TenantId: acme, Slug: "acme", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateFrom: active, StateTo: active,
				ReleaseFrom: older, ReleaseTo: newer, Restarts: []string{"iam"}, Steps: []string{"fetch", "start", "confirm"},
			})
			globex := proto.CloneOf(p.GetTenants()[0])
			globex.TenantId, globex.Slug = "tnt_01m8jjsjw9e9ht20ggwbmrk2j8", "globex"
			p.Tenants = append(p.Tenants, globex)
			p.Rollout = &registryv1.RolloutPolicy{
				Waves:       []*registryv1.Wave{{Name: "canary", TenantIds: []string{globex.GetTenantId()}}, {Name: "general", TenantIds: []string{acme}}},
				MaxParallel: 2, Bake: durationpb.New(10 * time.Minute), Samples: 100, Rollback: registryv1.RollbackScope_ROLLBACK_SCOPE_WAVE,
				Gates: &registryv1.Gates{ErrorRatioGrowth: 0.07, P99Factor: 3, Restarts: 1, FailedJobs: 7},
				Windows: []*registryv1.Window{
					{Days: []string{"mon", "tue"}, StartMinute: 540, EndMinute: 1020, Zone: "Europe/Vienna"},
					{Deny: true, From: timestamppb.New(time.Date(2026, time.December, 24, 0, 0, 0, 0, time.UTC)), Until: timestamppb.New(time.Date(2027, time.January, 2, 0, 0, 0, 0, time.UTC))},
				},
			}
			return p
		}(),
		"stack": func() *registryv1.Plan {
			p := base(registryv1.OperationKind_OPERATION_KIND_UPGRADE, &registryv1.TenantChange{
				TenantId: acme, Slug: "acme", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateFrom: active, StateTo: active,
				ReleaseFrom: older, ReleaseTo: newer, Restarts: []string{"iam"}, Steps: []string{"fetch", "start", "confirm"},
				StackChange: &registryv1.StackChange{
					Stack: "a3-prod-tnt-01m8jjsjw9e9ht20ggwbmrk2j7", ChangeSet: "arn:aws:cloudformation:eu-central-1:123456789012:changeSet/a3-1/2",
					Changes: []string{"adds a revision of IamTask (AWS::ECS::TaskDefinition)", "REPLACES modify Database (AWS::RDS::DBInstance)"},
					Denied:  []string{"REPLACES modify Database (AWS::RDS::DBInstance)"},
				},
			})
			p.Platform, p.Account, p.Region = "aws", "123456789012", "eu-central-1"
			return p
		}(),
		"stack-twice": base(registryv1.OperationKind_OPERATION_KIND_UPGRADE, &registryv1.TenantChange{
			TenantId: acme, Slug: "acme", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateFrom: active, StateTo: active,
			ReleaseFrom: older, ReleaseTo: newer, Restarts: []string{"clock"}, Steps: []string{"fetch", "start", "confirm"},
			StackChange: &registryv1.StackChange{
				Stack: "a3-prod-tnt-01m8jjsjw9e9ht20ggwbmrk2j7", ChangeSet: "arn:aws:cloudformation:eu-central-1:123456789012:changeSet/a3-1/2", ThenTemplate: strings.Repeat("e", 64),
				Changes: []string{"add Clock (AWS::ECS::Service)", "add StoreClips (AWS::S3::Bucket)", "adds a revision of IamTask (AWS::ECS::TaskDefinition)"},
			},
		}),
		"provision": func() *registryv1.Plan {
			p := base(registryv1.OperationKind_OPERATION_KIND_PROVISION, &registryv1.TenantChange{
				Slug: "initech", DisplayName: "Initech", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE, StateTo: active, ReleaseTo: newer,
				Labels: map[string]string{"ring": "early", "beta": "yes"}, Restarts: []string{"iam"}, Steps: []string{"fetch", "identity", "answer"},
			})
			p.Selectors, p.AcceptedTiers = []string{"--tenant initech"}, []registryv1.IsolationTier{registryv1.IsolationTier_ISOLATION_TIER_DATABASE}
			return p
		}(),
		"account": func() *registryv1.Plan {
			p := base(registryv1.OperationKind_OPERATION_KIND_PROVISION, &registryv1.TenantChange{
				Slug: "initech", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateTo: active, ReleaseTo: newer, Account: "210987654321",
				Restarts: []string{"iam"}, Steps: []string{"fetch", "identity", "answer"},
			})
			p.Platform, p.Account, p.Region = "aws", "123456789012", "eu-central-1"
			return p
		}(),
		"account-left": func() *registryv1.Plan {
			p := base(registryv1.OperationKind_OPERATION_KIND_OFFBOARD, &registryv1.TenantChange{
				TenantId: acme, Slug: "acme", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateFrom: active, Account: "210987654321",
				StateTo: registryv1.TenantState_TENANT_STATE_OFFBOARDED, ReleaseFrom: older, ReleaseTo: older, Restarts: []string{"iam"}, Steps: []string{"unpublish", "export", "wait", "delete"},
			})
			p.Platform, p.Account, p.Region, p.Wait = "aws", "123456789012", "eu-central-1", durationpb.New(30*24*time.Hour)
			return p
		}(),
		"restore": base(registryv1.OperationKind_OPERATION_KIND_RESTORE, &registryv1.TenantChange{
			TenantId: acme, Slug: "acme", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateFrom: active, StateTo: active,
			ReleaseFrom: newer, ReleaseTo: newer, Restarts: []string{"iam"}, Steps: []string{"rehearse", "stop", "restore", "start"},
			Restore: &registryv1.RestoreChange{
				Backup: "20260228T030000Z-k3f9q2", TakenAt: timestamppb.New(time.Date(2026, time.February, 28, 3, 0, 0, 0, time.UTC)), ManifestDigest: "sha256:" + strings.Repeat("f", 64),
				Release: older, Directory: "/media/usb/20260228T030000Z-k3f9q2", LostEntries: 42, Replace: true,
			},
			Notes: []string{"Everybody has to sign in again."},
		}),
		"restore-copy": base(registryv1.OperationKind_OPERATION_KIND_RESTORE, &registryv1.TenantChange{
			TenantId: acme, Slug: "acme", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateFrom: suspended, StateTo: suspended,
			ReleaseFrom: newer, ReleaseTo: newer, Restarts: []string{"iam"}, Steps: []string{"rehearse", "stop", "restore", "start"},
			Restore: &registryv1.RestoreChange{
				Backup: "20260228T030000Z-k3f9q2", TakenAt: timestamppb.New(time.Date(2026, time.February, 28, 3, 0, 0, 0, time.UTC)), ManifestDigest: "sha256:" + strings.Repeat("f", 64),
				Release: older, CopiedFrom: "tnt_01m8jjsjw9e9ht20ggwbmrk2j8",
			},
		}),
		"offboard": base(registryv1.OperationKind_OPERATION_KIND_OFFBOARD, &registryv1.TenantChange{
			TenantId: acme, Slug: "acme", IsolationTier: registryv1.IsolationTier_ISOLATION_TIER_DEDICATED, StateFrom: active,
			StateTo: registryv1.TenantState_TENANT_STATE_OFFBOARDED, ReleaseFrom: older, ReleaseTo: older, Restarts: []string{"iam"},
			Steps: []string{"unpublish", "export", "delete"}, Notes: []string{"This can't be undone."},
		}),
	}
}

func stored(t *testing.T, p *registryv1.Plan) *registryv1.StoredPlan {
	t.Helper()
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	return &registryv1.StoredPlan{
		Hash: "sha256:" + strings.Repeat("d", 64), Document: text, Actor: "operator-ann", CreatedAt: timestamppb.New(at),
		ExpiresAt: timestamppb.New(at.Add(24 * time.Hour)), NeedsApproval: true,
	}
}

// What is printed of a plan, in words and for programs, is what stands in testdata; -update writes it anew.
func TestPlanIsPrintedWhole(t *testing.T) {
	for name, p := range made() {
		var words bytes.Buffer
		if err := plan.Page(&words, stored(t, p), p); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".txt", words.Bytes())
		// The library puts in blanks at random, so that nobody relies on them.
		text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, blank := range []string{`": `, `, "`, `, {`} {
			text = bytes.ReplaceAll(text, []byte(blank), []byte(strings.ReplaceAll(blank, " ", "")))
		}
		golden(t, name+".json", append(text, '\n'))
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		const mode = 0o644
		if err := os.WriteFile(file, got, mode); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is printed differently:\n%s\nwant:\n%s", name, got, want)
	}
}

// Everything of a plan that says what is done is in the words, so that who approves has read it.
func TestWordsOfAPlanLeaveNothingOut(t *testing.T) {
	for name, p := range made() {
		var words bytes.Buffer
		if err := plan.Page(&words, stored(t, p), p); err != nil {
			t.Fatal(err)
		}
		unsaid := map[protoreflect.Name]bool{"after_operation": true} // the registry's guard, no deed
		each(p.ProtoReflect(), func(f protoreflect.FieldDescriptor, text string) {
			if f.Name() == "blueprint_digest" {
				text = text[:19]
			}
			if !unsaid[f.Name()] && !strings.Contains(words.String(), text) {
				t.Errorf("%s: %s is %q, which the page doesn't say", name, f.FullName(), text)
			}
		})
	}
}

// each calls back with each text of a message, those of its parts too.
func each(m protoreflect.Message, tell func(protoreflect.FieldDescriptor, string)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		one := func(v protoreflect.Value) {
			switch {
			case f.Kind() == protoreflect.StringKind:
				tell(f, v.String())
			case f.Kind() == protoreflect.MessageKind:
				each(v.Message(), tell)
			}
		}
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				tell(f, k.String()+"="+v.String())
				return true
			})
		case f.IsList():
			for i := range v.List().Len() {
				one(v.List().Get(i))
			}
		default:
			one(v)
		}
		return true
	})
}

// Row F52, what a plan is held against: whatever is another in the world is named, each field of a plan and of a tenant in it.
func TestEachDifferenceOfTheWorldIsNamed(t *testing.T) {
	same := map[protoreflect.Name]bool{
		"kind": true, "selectors": true, "reason": true, "accepted_tiers": true, "wait": true, // what was asked for, from which the plan is made anew
		"tenants": true, "rollout": true, // compared part by part; rollouts have a policy of their own
	}
	was, held := made()["upgrade"], 0
	for _, c := range []struct {
		of     func(*registryv1.Plan) protoreflect.Message
		tenant bool
	}{
		{func(p *registryv1.Plan) protoreflect.Message { return p.ProtoReflect() }, false},
		{func(p *registryv1.Plan) protoreflect.Message { return p.GetTenants()[0].ProtoReflect() }, true},
	} {
		fields := c.of(was).Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			if !c.tenant && same[f.Name()] {
				continue
			}
			now := proto.CloneOf(was)
			change(t, c.of(now), f)
			if d := plan.Differences(was, now, nil); len(d) == 0 {
				t.Errorf("%s is another, and nothing is said", f.FullName())
			}
			held++
		}
	}
	if d := plan.Differences(was, proto.CloneOf(was), nil); len(d) > 0 {
		t.Errorf("nothing differs, and it is said: %q", d)
	}
	rollout := func(wave string) *registryv1.Plan {
		p := proto.CloneOf(was)
		p.Rollout = &registryv1.RolloutPolicy{Waves: []*registryv1.Wave{{Name: wave, TenantIds: []string{p.GetTenants()[0].GetTenantId()}}}}
		return p
	}
	more := proto.CloneOf(was)
	more.Tenants = append(more.Tenants, &registryv1.TenantChange{TenantId: "tnt_other", Slug: "globex"})
	for _, c := range []struct {
		was, now *registryv1.Plan
		begun    map[string]bool
		says     string
	}{
		{was, more, nil, "the selectors choose tenant globex too"},
		{more, was, nil, "the selectors don't choose tenant globex any more"},
		{more, was, map[string]bool{"tnt_other": true}, ""},
		{rollout("canary"), rollout("general"), nil, "the ring of tenant acme is general, the plan has canary"},
		{rollout("canary-2"), rollout("canary"), nil, ""},
	} {
		if d := strings.Join(plan.Differences(c.was, c.now, c.begun), "; "); !strings.Contains(d, c.says) || c.says == "" && d != "" {
			t.Errorf("it is said %q, want %q", d, c.says)
		}
		held++
	}
	// Of a restore, the number of entries that are lost grows while the tenant is written to, which its plan says.
	back := made()["restore"]
	for what, change := range map[string]func(*registryv1.RestoreChange){
		"the backup of tenant acme":                              func(r *registryv1.RestoreChange) { r.Backup = "20260228T030000Z-zzzzzz" },
		"the manifest of the backup of tenant acme":              func(r *registryv1.RestoreChange) { r.ManifestDigest = "sha256:" + strings.Repeat("0", 64) },
		"the number of log entries that are lost of tenant acme": func(r *registryv1.RestoreChange) { r.LostEntries-- },
		"what is done to tenant acme":                            func(r *registryv1.RestoreChange) { r.Replace = false },
	} {
		now := proto.CloneOf(back)
		change(now.GetTenants()[0].GetRestore())
		if d := strings.Join(plan.Differences(back, now, nil), "; "); !strings.Contains(d, what) {
			t.Errorf("it is said %q, want %q", d, what)
		}
		held++
	}
	t.Attr("row", fmt.Sprint("F52 ", held))
}

// change makes a field another.
func change(t *testing.T, m protoreflect.Message, f protoreflect.FieldDescriptor) {
	t.Helper()
	switch {
	case f.IsMap():
		m.Mutable(f).Map().Set(protoreflect.ValueOfString("another").MapKey(), protoreflect.ValueOfString("one"))
	case f.IsList():
		m.Mutable(f).List().Append(protoreflect.ValueOfString("another"))
	case f.Kind() == protoreflect.StringKind:
		m.Set(f, protoreflect.ValueOfString("another"))
	case f.Kind() == protoreflect.MessageKind:
		part := m.Mutable(f).Message()
		change(t, part, part.Descriptor().Fields().Get(0))
	case f.Kind() == protoreflect.EnumKind:
		m.Set(f, protoreflect.ValueOfEnum(f.Enum().Values().Get(f.Enum().Values().Len()-1).Number()))
	default:
		t.Fatalf("%s is of a kind that this test doesn't know: teach it", f.FullName())
	}
}

// Row F51: who names nobody, or everybody, is refused before anybody is asked.
func TestSelectionOfNobodyOrOfAllIsRefused(t *testing.T) {
	refused := []plan.Selection{
		{}, {Tenants: []string{""}}, {Tenants: []string{" "}}, {Tenants: []string{"*"}}, {Tenants: []string{"acme", "*"}}, {Tenants: []string{"acm?"}}, {Tenants: []string{"%"}},
		{Labels: []string{""}}, {Labels: []string{"ring"}}, {Labels: []string{"ring="}}, {Labels: []string{"ring=*"}}, {Labels: []string{"=canary"}}, {Labels: []string{"*=*"}},
		{Waves: []string{""}}, {Waves: []string{"*"}}, {Tenants: []string{"acme"}, Waves: []string{"\t"}},
	}
	for _, s := range refused {
		_, err := (&plan.Planner{Plane: "dev"}).Make(t.Context(), plan.Request{Kind: registryv1.OperationKind_OPERATION_KIND_SUSPEND, Selection: s})
		if fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%+v: %v, want it refused", s, err)
		}
	}
	byLabel := plan.Request{Kind: registryv1.OperationKind_OPERATION_KIND_PROVISION, Selection: plan.Selection{Labels: []string{"ring=canary"}}}
	if _, err := (&plan.Planner{Plane: "dev"}).Make(t.Context(), byLabel); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("tenants are made by a label: %v", err)
	}
	if _, err := plan.ParseSelection([]string{"--all yes"}); err == nil {
		t.Error("a selector that nobody knows is read")
	}
	t.Attr("row", fmt.Sprint("F51 ", len(refused)+2))
}

// A plan whose text is not what its hash is of is not read: who applies a hash means that very text.
func TestPlanOfAnotherTextIsNotOpened(t *testing.T) {
	if _, err := plan.Open(stored(t, made()["upgrade"])); fault.KindOf(err) != fault.FailedPrecondition {
		t.Errorf("a plan was opened whose hash is of another text: %v", err)
	}
}

// answering is a registry that answers one plan, whatever is asked for.
type answering struct {
	registryv1.PlanServiceClient
	plan *registryv1.StoredPlan
}

func (a answering) GetPlan(context.Context, *registryv1.GetPlanRequest, ...grpc.CallOption) (*registryv1.GetPlanResponse, error) {
	return &registryv1.GetPlanResponse{Plan: a.plan}, nil
}

// Who types a hash is shown, approves and carries out the plan of that hash, and no other that is sound in itself.
func TestPlanOfAnotherHashThanWasTypedIsNotRead(t *testing.T) {
	s := stored(t, made()["upgrade"])
	sum := sha256.Sum256(s.GetDocument())
	digits := hex.EncodeToString(sum[:])
	s.Hash = "sha256:" + digits
	for typed, read := range map[string]bool{
		"sha256:" + digits: true, digits: true, digits[:16]: true, strings.ToUpper(digits[:16]): true,
		"sha256:" + strings.Repeat("e", 64): false, digits[:15] + other(digits[15]): false, digits + "0": false,
	} {
		_, p, err := plan.Read(t.Context(), answering{plan: s}, typed)
		if (err == nil) != read || read && p.GetReason() != "security update" {
			t.Errorf("typed %s: %v", typed, err)
		}
		if err != nil && (fault.KindOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), s.GetHash())) {
			t.Errorf("typed %s: %v", typed, err)
		}
	}
}

// other is another digit.
func other(digit byte) string {
	if digit == '0' {
		return "1"
	}
	return "0"
}
