package rpc

import (
	"os"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/apilint"
)

func TestBothChainsStandInTheirOrder(t *testing.T) {
	s := &Server{}
	var httpNames []string
	for _, l := range s.httpChain() {
		httpNames = append(httpNames, l.name)
		if l.reason == "" {
			t.Errorf("link %s has no reason", l.name)
		}
	}
	if want := []string{"recover", "limits", "cors", "trace", "authn", "admission"}; !slices.Equal(httpNames, want) {
		t.Errorf("HTTP chain is %v, want %v", httpNames, want)
	}
	var names []string
	for _, l := range s.rpcChain() {
		names = append(names, l.name)
		if l.reason == "" {
			t.Errorf("link %s has no reason", l.name)
		}
	}
	if want := []string{"span", "fault", "denials", "reads", "scope", "rule", "licence", "validate", "idempotency"}; !slices.Equal(names, want) {
		t.Errorf("RPC chain is %v, want %v", names, want)
	}
	for file, between := range map[string]string{"architecture.md": " → ", "security.md": ", "} {
		text, err := os.ReadFile("../../docs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, chain := range [][]string{httpNames, names} {
			if line := strings.Join(chain, between); !strings.Contains(strings.ReplaceAll(string(text), "\n", " "), line) {
				t.Errorf("docs/%s does not say that the chain is %s", file, line)
			}
		}
	}
	names = nil
	for _, l := range s.planeChain(nil) {
		names = append(names, l.name)
	}
	if want := []string{"span", "fault", "admit", "rule", "validate"}; !slices.Equal(names, want) {
		t.Errorf("chain of the control plane is %v, want %v", names, want)
	}
}

// TestEveryMethodKeepsWhatAPIsPromise is promise 1 of the design, and the rules that stand beside each method and field.
func TestEveryMethodKeepsWhatAPIsPromise(t *testing.T) {
	methods := apilint.Ours()
	if len(methods) < 40 {
		t.Fatalf("only %d methods were looked at", len(methods))
	}
	for _, c := range apilint.Checks() {
		t.Run(c.Name, func(t *testing.T) {
			for _, fault := range c.Of(methods) {
				t.Error(fault)
			}
		})
	}
}
