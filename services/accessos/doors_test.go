package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"a3os.app/libs/awsdoors"
	"a3os.app/libs/ministacktest"
)

// A process asks doors with the session that it finds, and says of each what it answered; without a list, or with a long-lived key, it asks none.
func TestDoorsAreAskedWithTheSessionOfTheProcess(t *testing.T) {
	server := ministacktest.Start(t)
	cfg := server.Role(t, "looks", ministacktest.Statement{Effect: "Allow", Action: []string{"s3:*"}, Resource: []string{"*"}})
	keys, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": ministacktest.Region, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_SESSION_TOKEN": keys.SessionToken} {
		t.Setenv(name, value)
	}
	doors, err := json.Marshal([]awsdoors.Door{{Ask: awsdoors.ReadSecret, Of: "tenant/another"}, {Ask: awsdoors.TakeRole, Of: "arn:aws:iam::" + ministacktest.Account + ":role/looks"},
		{Ask: "nobody-knows", Of: "anything"}})
	if err != nil {
		t.Fatal(err)
	}
	told := []string{doorsPlane + "=dev", doorsList + "=" + string(doors)}
	var out bytes.Buffer
	if code := askDoors(t.Context(), told, &out); code != 0 {
		t.Fatalf("it ends with %d: %s", code, out.String())
	}
	got := map[int]awsdoors.Outcome{}
	for lines := json.NewDecoder(&out); lines.More(); {
		var a awsdoors.Answer
		if err := lines.Decode(&a); err != nil {
			t.Fatal(err)
		}
		got[a.Number] = a.Outcome
	}
	if len(got) != 3 || got[0] != awsdoors.Refused || got[1] != awsdoors.LetIn || got[2] != awsdoors.Unclear {
		t.Errorf("the doors answered %v", got)
	}
	if code := askDoors(t.Context(), told[:1], &out); code != exitUsage {
		t.Errorf("without a list it ends with %d", code)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SESSION_TOKEN", "")
	if code := askDoors(t.Context(), told, &out); code != exitFailed || out.Len() > 0 {
		t.Errorf("with a long-lived key it ends with %d: %s", code, out.String())
	}
}
