package aws

import (
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"a3os.app/tools/fleet/internal/platform"
)

// Emulate has drift be looked for by templates as an emulator carried them out.
func (p *Platform) Emulate(template func([]byte) ([]byte, error)) { p.emulated = template }

// Lent are the keys that this process was given.
func (p *Platform) Lent() sdk.CredentialsProvider { return p.lent }

// LeftServer is what is left of a set's own server.
func (p *Platform) LeftServer(t testing.TB, s platform.Set) []string {
	t.Helper()
	of, err := p.of(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	left, err := of.leftServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// Left is what AWS still has of a set.
func (p *Platform) Left(t testing.TB, s platform.Set) []string {
	t.Helper()
	of, err := p.of(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	left, err := of.left(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// LeftKeys are the set's keys that nobody has deleted.
func (p *Platform) LeftKeys(t testing.TB, s platform.Set) []string {
	t.Helper()
	of, err := p.of(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	left, err := of.leftKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// LeftTemplates are what is left of the templates of a set's stack.
func (p *Platform) LeftTemplates(t testing.TB, s platform.Set) []string {
	t.Helper()
	of, err := p.of(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	left, err := of.leftTemplates(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// DeleteTemplates deletes them.
func (p *Platform) DeleteTemplates(t testing.TB, s platform.Set) (bool, error) {
	t.Helper()
	of, err := p.of(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return of.deleteTemplates(t.Context())
}

// DeleteBuckets empties and deletes a set's buckets.
func (p *Platform) DeleteBuckets(t testing.TB, s platform.Set) (bool, error) {
	t.Helper()
	of, err := p.of(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return of.deleteBuckets(t.Context())
}

// Untried are the gaps of the proof of isolation by what a set's stack keeps.
func (p *Platform) Untried(t testing.TB, s platform.Set) []string {
	t.Helper()
	of, err := p.of(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	told, err := of.outputs(t.Context(), of.stackName())
	if err != nil {
		t.Fatal(err)
	}
	return of.untried(told)
}

// Proven are the buckets of a set whose doors tasks are to ask.
func (p *Platform) Proven(t testing.TB, s platform.Set) (buckets []string) {
	t.Helper()
	of, err := p.of(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	is, err := of.proven(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range is.Holdings.Buckets {
		buckets = append(buckets, b.Name)
	}
	return buckets
}
