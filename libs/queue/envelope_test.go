package queue_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"a3os.app/libs/config"
	"a3os.app/libs/id"
	"a3os.app/libs/queue"
	"a3os.app/libs/queue/queuetest"
	queuev1 "a3os.app/proto/gen/go/a3os/queue/v1"
)

func TestSignedMessageIsBelieved(t *testing.T) {
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	m := p.Message(t)
	v, err := p.Verifier.Verify(m.Envelope, m.Payload)
	if err != nil {
		t.Fatal(err)
	}
	var payload queuev1.SlicePayload
	if err := v.Decode(&payload); err != nil {
		t.Fatal(err)
	}
	if v.ID() != m.ID || v.Tenant() != p.Tenant || v.Plane() != "dev" || v.Workspace().String() != payload.GetWorkspaceId() || v.Kind() != queuetest.Kind ||
		v.Issuer() != "discovery" || v.OnBehalfOf() != queue.BySchedule || time.Until(v.ExpiresAt()) > time.Hour || payload.GetSlice() != 3 {
		t.Errorf("verified as %+v", v)
	}
	again, err := p.Verifier.VerifyHeader(v.Header())
	if err != nil || again.ID() != m.ID {
		t.Errorf("as a header: %v", err)
	}
}

func TestNothingElseIsBelieved(t *testing.T) {
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	for _, bad := range queuetest.BadMessages(t, p) {
		v, err := p.Verifier.Verify(bad.Envelope, bad.Payload)
		if err == nil || !v.IsZero() {
			t.Errorf("%s: believed", bad.Name)
			continue
		}
		if bad.Want != nil && !errors.Is(err, bad.Want) {
			t.Errorf("%s: %v", bad.Name, err)
		}
		refusal, ok := errors.AsType[*queue.Refusal](err)
		if !ok || bad.Want != nil && (refusal.Envelope != nil) != bad.Said {
			t.Errorf("%s: %#v", bad.Name, err)
		}
		if strings.Contains(err.Error(), "%!") || len(err.Error()) < 20 {
			t.Errorf("%s: %q is no sentence", bad.Name, err)
		}
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	m := p.Message(t)
	for _, part := range [][]byte{m.Envelope, m.Payload} {
		for bit := range 8 * len(part) {
			part[bit/8] ^= 1 << (bit % 8)
			if _, err := p.Verifier.Verify(m.Envelope, m.Payload); err == nil {
				t.Errorf("bit %d of %d was flipped and nobody noticed", bit, 8*len(part))
			}
			part[bit/8] ^= 1 << (bit % 8)
		}
	}
	if _, err := p.Verifier.Verify(m.Envelope, m.Payload); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// Row F26, of envelopes: signer and verifier have clocks of their own, up to ten minutes apart.
func TestMessageIsValidForItsTimeOnly(t *testing.T) {
	cases := map[time.Duration]error{
		0: nil, time.Minute - time.Nanosecond: nil, time.Minute: queue.ErrExpired, 10 * time.Minute: queue.ErrExpired,
		-time.Minute: nil, -time.Minute - time.Nanosecond: queue.ErrExpired, -10 * time.Minute: queue.ErrExpired,
	}
	synctest.Test(t, func(t *testing.T) {
		p := queuetest.NewParties(t, id.NewTenant(), "dev")
		m := p.MessageOf(t, queuetest.Kind, time.Minute)
		var ahead time.Duration
		verifier, err := queue.NewVerifier(queue.VerifierConfig{
			Keys: p.Key.Public(), Plane: "dev", Tenant: p.Tenant, Issuer: "discovery", Now: func() time.Time { return time.Now().Add(ahead) },
		})
		if err != nil {
			t.Fatal(err)
		}
		for offset, want := range cases {
			ahead = offset
			if _, err := verifier.Verify(m.Envelope, m.Payload); !errors.Is(err, want) {
				t.Errorf("clock %s ahead: %v", offset, err)
			}
		}
	})
	t.Attr("row", fmt.Sprintf("F26 %d", len(cases)))
}

func TestKeysCanBeExchangedWithoutLosingMessages(t *testing.T) {
	tenant := id.NewTenant()
	old, next := queuetest.NewParties(t, tenant, "dev"), queuetest.NewParties(t, tenant, "dev")
	keys, err := queue.ParseVerifyingKeys(old.Key.Public().String() + "," + next.Key.Public().String())
	if err != nil {
		t.Fatal(err)
	}
	v, err := queue.NewVerifier(queue.VerifierConfig{Keys: keys, Plane: "dev", Tenant: tenant, Issuer: "discovery"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []queuetest.Parties{old, next} {
		m := p.Message(t)
		if _, err := v.Verify(m.Envelope, m.Payload); err != nil {
			t.Error(err)
		}
	}
	parsed, err := queue.ParseSigningKey(next.Key.Secret())
	if err != nil || parsed.ID() != next.Key.ID() || next.Key.ID() == old.Key.ID() {
		t.Errorf("read as key %s, %v", parsed.ID(), err)
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if strings.Contains(fmt.Sprintf(form, next.Key), next.Key.Secret().Reveal()) {
			t.Errorf("%s prints the key", form)
		}
	}
	for _, s := range []string{"", "AAAA", ",", old.Key.Public().String() + ",", "!"} {
		if _, err := queue.ParseVerifyingKeys(s); err == nil {
			t.Errorf("%q is read as keys", s)
		}
		if _, err := queue.ParseSigningKey(config.NewSecret(s)); err == nil {
			t.Errorf("%q is read as a key", s)
		}
	}
}

func TestPayloadMustNameTheEnvelopesScope(t *testing.T) {
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	workspace := id.NewWorkspace()
	good := func() *queuev1.SlicePayload {
		return &queuev1.SlicePayload{
			RunId: id.NewRun().String(), IntegrationId: id.NewIntegration().String(), WorkspaceId: workspace.String(), TenantId: p.Tenant.String(),
		}
	}
	for name, tc := range map[string]struct {
		spoil func(*queuev1.SlicePayload)
		want  error
	}{
		"another workspace": {func(m *queuev1.SlicePayload) { m.WorkspaceId = id.NewWorkspace().String() }, queue.ErrForeign},
		"another tenant":    {func(m *queuev1.SlicePayload) { m.TenantId = id.NewTenant().String() }, queue.ErrForeign},
		"no workspace":      {func(m *queuev1.SlicePayload) { m.WorkspaceId = "" }, queue.ErrForeign},
		"no tenant":         {func(m *queuev1.SlicePayload) { m.TenantId = "" }, queue.ErrForeign},
		"text for an id":    {func(m *queuev1.SlicePayload) { m.RunId = "hunter2" }, queue.ErrMalformed},
	} {
		m := good()
		tc.spoil(m)
		if _, err := p.Signer.Sign(m, workspace, queuetest.Kind, queue.BySchedule, time.Hour); !errors.Is(err, tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: signed, %v", name, err)
		}
		// A signer that does not look, as one gone bad would not.
		body, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		envelope := queuetest.SignBlindly(t, p, workspace, body)
		v, err := p.Verifier.Verify(envelope, body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := v.Decode(new(queuev1.SlicePayload)); !errors.Is(err, tc.want) {
			t.Errorf("%s: decoded, %v", name, err)
		}
	}
	if err := (queue.Verified{}).Decode(good()); !errors.Is(err, queue.ErrForged) {
		t.Errorf("the zero Verified decodes: %v", err)
	}
}

func TestSignerRefusesWhatNobodyWouldBelieve(t *testing.T) {
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	workspace := id.NewWorkspace()
	payload := &queuev1.SlicePayload{RunId: id.NewRun().String(), WorkspaceId: workspace.String(), TenantId: p.Tenant.String()}
	for name, f := range map[string]func() (queue.Message, error){
		"no workspace": func() (queue.Message, error) {
			return p.Signer.Sign(payload, id.Workspace{}, "a.b", queue.BySchedule, time.Hour)
		},
		"no time": func() (queue.Message, error) { return p.Signer.Sign(payload, workspace, "a.b", queue.BySchedule, 0) },
		"too long": func() (queue.Message, error) {
			return p.Signer.Sign(payload, workspace, "a.b", queue.BySchedule, queue.MostTTL+1)
		},
		"bad kind": func() (queue.Message, error) {
			return p.Signer.Sign(payload, workspace, "A b", queue.BySchedule, time.Hour)
		},
		"no principal": func() (queue.Message, error) { return p.Signer.Sign(payload, workspace, "a.b", "", time.Hour) },
		"a payload that can carry anything": func() (queue.Message, error) {
			return p.Signer.Sign(&queuev1.SignedEnvelope{}, workspace, "a.b", queue.BySchedule, time.Hour)
		},
	} {
		if m, err := f(); err == nil || !m.ID.IsZero() {
			t.Errorf("%s: signed", name)
		}
	}
}

// No payload may be able to carry a secret: every message of the package that is named a payload is looked at.
func TestNoPayloadCanCarryASecret(t *testing.T) {
	messages := queuev1.File_a3os_queue_v1_envelope_proto.Messages()
	seen := 0
	for i := range messages.Len() {
		if d := messages.Get(i); strings.HasSuffix(string(d.Name()), "Payload") {
			seen++
			if err := queue.CheckPayload(d); err != nil {
				t.Error(err)
			}
		}
	}
	if seen == 0 {
		t.Error("no payload was looked at")
	}

	field := func(name string, kind descriptorpb.FieldDescriptorProto_Type, change func(*descriptorpb.FieldDescriptorProto)) protoreflect.MessageDescriptor {
		fields := []*descriptorpb.FieldDescriptorProto{}
		for i, n := range []string{"tenant_id", "workspace_id", name} {
			f := &descriptorpb.FieldDescriptorProto{Name: proto.String(n), Number: proto.Int32(int32(i + 1)), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()}
			if n == name {
				f.Type = kind.Enum()
				change(f)
			}
			fields = append(fields, f)
		}
		file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
			Name: proto.String("p.proto"), Package: proto.String("p"), Syntax: proto.String("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("P"), Field: fields}},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return file.Messages().Get(0)
	}
	plain := func(*descriptorpb.FieldDescriptorProto) {}
	for name, tc := range map[string]struct {
		d  protoreflect.MessageDescriptor
		ok bool
	}{
		"an id":    {field("run_id", descriptorpb.FieldDescriptorProto_TYPE_STRING, plain), true},
		"a number": {field("slice", descriptorpb.FieldDescriptorProto_TYPE_UINT32, plain), true},
		"text":     {field("note", descriptorpb.FieldDescriptorProto_TYPE_STRING, plain), false},
		"bytes":    {field("key_id", descriptorpb.FieldDescriptorProto_TYPE_BYTES, plain), false},
		"many ids": {field("run_id", descriptorpb.FieldDescriptorProto_TYPE_STRING, func(f *descriptorpb.FieldDescriptorProto) {
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}), false},
		"a message": {field("inner", descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, func(f *descriptorpb.FieldDescriptorProto) { f.TypeName = proto.String(".p.P") }), false},
		"a marked id": {field("run_id", descriptorpb.FieldDescriptorProto_TYPE_STRING, func(f *descriptorpb.FieldDescriptorProto) {
			f.Options = &descriptorpb.FieldOptions{DebugRedact: proto.Bool(true)}
		}), false},
		"no scope at all":  {(&queuev1.SignedEnvelope{}).ProtoReflect().Descriptor(), false},
		"an empty message": {(&descriptorpb.GeneratedCodeInfo{}).ProtoReflect().Descriptor(), false},
	} {
		if err := queue.CheckPayload(tc.d); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeaderHasOneForm(t *testing.T) {
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	h := queue.EncodeHeader(p.Message(t))
	if _, err := p.Verifier.VerifyHeader(h); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty": "", "dot": ".", "no dot": strings.ReplaceAll(h, ".", ""), "two dots": h + ".", "padding": h + "=", "space": " " + h, "line end": h + "\n",
		"line end inside": h[:10] + "\r\n" + h[10:], "standard alphabet": "+/" + h, "oversized": h + strings.Repeat("A", queue.MostHeader), "cut": h[:len(h)-1],
	} {
		if _, err := p.Verifier.VerifyHeader(bad); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
}

func TestMessageGoesWithTheCallThatPresentedIt(t *testing.T) {
	p := queuetest.NewParties(t, id.NewTenant(), "dev")
	m := p.Message(t)
	v, err := p.Verifier.Verify(m.Envelope, m.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := queue.FromContext(queue.NewContext(t.Context(), v)); err != nil || got.ID() != m.ID {
		t.Errorf("in the context is %v, %v", got.ID(), err)
	}
	if _, err := queue.FromContext(queue.NewContext(t.Context(), queue.Verified{})); !errors.Is(err, queue.ErrForged) {
		t.Errorf("the zero Verified is taken for a message: %v", err)
	}
	if _, err := queue.FromContext(t.Context()); !errors.Is(err, queue.ErrForged) {
		t.Errorf("no message: %v", err)
	}
}

func TestBackoffIsBoundedAndJittered(t *testing.T) {
	b := queue.Backoff{First: time.Second, Most: time.Minute}
	seen := make(map[time.Duration]bool)
	for failures := range 2000 {
		pause := b.After(failures + 1)
		bound := min(time.Second<<min(failures, 20), time.Minute)
		if pause < bound/2 || pause > bound {
			t.Fatalf("after %d failures: %s", failures+1, pause)
		}
		seen[pause] = true
	}
	if len(seen) < 1000 {
		t.Errorf("%d different pauses of 2000", len(seen))
	}
}

func FuzzVerify(f *testing.F) {
	p := queuetest.NewParties(f, id.NewTenant(), "dev")
	good := p.Message(f)
	f.Add(good.Envelope, good.Payload)
	for _, bad := range queuetest.BadMessages(f, p) {
		f.Add(bad.Envelope, bad.Payload)
	}
	f.Fuzz(func(t *testing.T, envelope, payload []byte) {
		v, err := p.Verifier.Verify(envelope, payload)
		if err != nil {
			if !v.IsZero() {
				t.Fatal("refused and believed")
			}
			return
		}
		// What is believed was signed: no key of this run was used for anything but the seeds.
		if v.Tenant() != p.Tenant || string(payload) != string(good.Payload) && v.ID() == good.ID {
			t.Fatalf("believed %q", envelope)
		}
		if err := v.Decode(new(queuev1.SlicePayload)); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	p := queuetest.NewParties(f, id.NewTenant(), "dev")
	f.Add(queue.EncodeHeader(p.Message(f)))
	f.Add("")
	f.Add(".")
	f.Add("AA.AA")
	f.Add("AB.AA")
	f.Add("A\nA.")
	f.Fuzz(func(t *testing.T, header string) {
		envelope, payload, err := queue.ParseHeader(header)
		if err != nil {
			if !errors.Is(err, queue.ErrMalformed) {
				t.Fatalf("%q: %v", header, err)
			}
			return
		}
		if again := queue.EncodeHeader(queue.Message{Envelope: envelope, Payload: payload}); again != header {
			t.Fatalf("%q and %q are the same bytes", header, again)
		}
	})
}
