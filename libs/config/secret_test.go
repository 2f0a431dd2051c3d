package config_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"a3os.app/libs/config"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	type holder struct {
		Public  config.Secret
		private config.Secret
		Pointer *config.Secret
		List    []config.Secret
		Map     map[string]config.Secret
		Any     any
	}
	s := config.NewSecret(canary)
	h := holder{Public: s, private: s, Pointer: &s, List: []config.Secret{s}, Map: map[string]config.Secret{"k": s}, Any: s}
	var printed bytes.Buffer
	for _, v := range []any{s, &s, h, &h, []any{h}, errors.Join(fmt.Errorf("with %v", s))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%10s", "%-5.3v", "%!"} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
		fmt.Fprintln(&printed, v)
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&printed, nil), slog.NewJSONHandler(&printed, nil)} {
		log := slog.New(handler)
		log.Info("m", "secret", s, "pointer", &s, "holder", h, "group", slog.GroupValue(slog.Any("s", s)))
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, xml.Marshal} {
		b, err := marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		printed.Write(b)
	}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	printed.Write(b)
	if !bytes.Contains(b, []byte(config.Redacted)) {
		t.Errorf("json is %s", b)
	}
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), strings.ToUpper(fmt.Sprintf("%x", canary)), fmt.Sprint([]byte(canary))} {
		if strings.Contains(printed.String(), form) {
			t.Errorf("printed %q", form)
		}
	}
	if s.Reveal() != canary {
		t.Errorf("reveals %q", s.Reveal())
	}
}

func TestSecretIsNoArgumentOfAQuery(t *testing.T) {
	if _, err := config.NewSecret(canary).Value(); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("err is %v", err)
	}
}
