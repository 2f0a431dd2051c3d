package usage_test

import (
	"strings"
	"testing"
	"time"

	"a3os.app/libs/id"
	"a3os.app/libs/tlog"
	"a3os.app/libs/usage"
)

func TestReportOpensAsItWasShown(t *testing.T) {
	tenant := id.NewTenant()
	key, vkey, err := tlog.NewKey(tlog.Origin("dev", tenant))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	until := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := usage.Report{Plane: "dev", Tenant: tenant, Serial: 3, Since: until.Add(-time.Hour), Until: until, Counts: map[string]int64{"seats": 4, "integrations": 2}}
	text, err := r.Text()
	if err != nil {
		t.Fatal(err)
	}
	if want := "a3os.app/dev/" + tenant.String() + "/usage\nlicence 3\nsince 2026-03-01T11:00:00Z\nuntil 2026-03-01T12:00:00Z\nintegrations 2\nseats 4\n"; text != want {
		t.Errorf("it is\n%s\nwant\n%s", text, want)
	}
	note, err := usage.Sign(r, signer)
	if err != nil || !strings.HasPrefix(note, text+"\n") {
		t.Fatalf("what was shown is not what was signed: %v\n%s", err, note)
	}
	v, err := tlog.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	got, err := usage.Open("dev", tenant, note, v)
	if err != nil || got.Counts["seats"] != 4 || got.Serial != 3 || !got.Until.Equal(until) {
		t.Errorf("read again it is %+v: %v", got, err)
	}
	other := id.NewTenant()
	checkpoint, err := signer.Sign(0, make([]byte, tlog.HashSize))
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]string{"more seats": strings.Replace(note, "seats 4", "seats 1", 1), "a line more": strings.Replace(note, "seats 4\n", "seats 4\nx 1\n", 1),
		"no signature": text, "a checkpoint": checkpoint.Note, "nothing": ""} {
		if _, err := usage.Open("dev", tenant, bad, v); err == nil {
			t.Errorf("it opens with %s", what)
		}
	}
	if _, err := usage.Open("dev", other, note, v); err == nil {
		t.Error("it is another tenant's")
	}
	if _, err := usage.Open("prod", tenant, note, v); err == nil {
		t.Error("it is another plane's")
	}
	// What is signed for another tenant with this one's key is not believed, and a checkpoint is no text.
	stolen := r
	stolen.Tenant = other
	forged, err := usage.Sign(stolen, signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := usage.Open("dev", tenant, forged, v); err == nil {
		t.Error("a report of another tenant passes for this one's")
	}
	if _, err := signer.SignText(tlog.Origin("dev", tenant) + "\n5\nAAAA\n"); err == nil {
		t.Error("a checkpoint was signed as a text")
	}
}

func TestReportHoldsNumbersAlone(t *testing.T) {
	for what, r := range map[string]usage.Report{
		"no tenant":         {Plane: "dev"},
		"a name of a thing": {Plane: "dev", Tenant: id.NewTenant(), Counts: map[string]int64{"ada@acme.example": 1}},
		"two lines":         {Plane: "dev", Tenant: id.NewTenant(), Counts: map[string]int64{"a\nb": 1}},
		"less than none":    {Plane: "dev", Tenant: id.NewTenant(), Counts: map[string]int64{"seats": -1}},
	} {
		if text, err := r.Text(); err == nil {
			t.Errorf("with %s it is %q", what, text)
		}
	}
}
