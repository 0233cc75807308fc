//! What `docs/credentials.md` has for copying, in each language, works as it stands.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use turnstone::auth::mint;

use crate::api::Api;
use crate::support::{Credentials, TestServer, Transport, require_tool, run, skipped};
use crate::wire::Wire;
use crate::{KEY, PLAIN, config};

const PAGE: &str = include_str!("../../docs/credentials.md");
/// Compilers take their time on a busy machine.
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// The block of a language in which a credential is made.
fn recipe(language: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let blocks = PAGE.split(&*fence).skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let mut made = blocks.filter(|block| block.to_lowercase().contains("hmac"));
    made.next().unwrap_or_else(|| panic!("there is no recipe in {language}"))
}

struct Place {
    server: TestServer,
    api: String,
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let server = TestServer::start(&config(PLAIN, ""));
        let api = format!("http://{}", Api::of(&server).address);
        Place { server, api, folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a program that is given secret, API and key in its environment, and prints `username password` twice: what it has made itself,
    /// and what it was given. Both are good.
    fn must_print_two_credentials(&self, command: &mut Command) {
        command.env("SECRET", self.server.secret()).env("API", &self.api).env("KEY", KEY);
        let finished = run(command.current_dir(self.folder.path()), RUN_LIMIT);
        assert_eq!(finished.code, Some(0), "{}", finished.all_output());
        let lines: Vec<_> = finished.stdout.lines().collect();
        assert_eq!(lines.len(), 2, "{}", finished.all_output());
        for line in lines {
            let (username, password) = line.split_once(' ').unwrap();
            assert!(username.ends_with(":alice"), "{line}");
            assert_eq!(*password, **mint(self.server.secret().as_bytes(), username));
            let credentials = Credentials { username: username.to_owned(), password: password.to_owned() };
            Wire::connect(&self.server, Transport::Udp, &credentials).allocate().unwrap();
        }
    }
}

#[test]
fn the_recipe_in_node_works() {
    let place = Place::new();
    let code = format!(
        "{}\nconst {{ SECRET, API, KEY }} = process.env;\nfor (const made of [turnCredentials(SECRET, \"alice\"), \
         await askForCredentials(API, KEY, \"alice\")]) console.log(made.username, made.credential);\n",
        recipe("js")
    );
    let file = place.write("recipe.mjs", &code);
    place.must_print_two_credentials(Command::new(require_tool("node", "nodejs")).arg(file));
}

#[test]
fn the_recipe_in_python_works() {
    let place = Place::new();
    let code = format!(
        "{}\nfrom os import environ\nfor made in [turn_credentials(environ['SECRET'], 'alice'), \
         ask_for_credentials(environ['API'], environ['KEY'], 'alice')]:\n    print(made['username'], made['credential'])\n",
        recipe("python")
    );
    let file = place.write("recipe.py", &code);
    place.must_print_two_credentials(Command::new(require_tool("python3", "python3")).arg(file));
}

#[test]
fn the_recipe_in_go_works() {
    if Command::new("go").arg("version").output().is_err() {
        return skipped("go is not installed");
    }
    let place = Place::new();
    let main = "func main() {\n\tfmt.Println(turnCredentials(os.Getenv(\"SECRET\"), \"alice\", time.Hour))\n\
                \tmade, err := askForCredentials(os.Getenv(\"API\"), os.Getenv(\"KEY\"), \"alice\")\n\tif err != nil {\n\t\tpanic(err)\n\t}\n\
                \tfmt.Println(made.Username, made.Credential)\n}\n";
    let code = format!("{}\n{main}", recipe("go").replace("\t\"net/http\"\n", "\t\"net/http\"\n\t\"os\"\n"));
    let file = place.write("main.go", &code);
    place.must_print_two_credentials(Command::new("go").arg("run").arg(file).env("GOCACHE", place.folder.path()));
}

#[test]
fn the_recipe_in_php_works() {
    let place = Place::new();
    let code = format!(
        "<?php\n{}\nforeach ([turn_credentials(getenv('SECRET'), 'alice'), ask_for_credentials(getenv('API'), getenv('KEY'), 'alice')] \
         as $made) echo \"$made[username] $made[credential]\\n\";\n",
        recipe("php")
    );
    let file = place.write("recipe.php", &code);
    place.must_print_two_credentials(Command::new(require_tool("php", "php-cli")).arg(file));
}

#[test]
fn the_recipe_in_ruby_works() {
    let place = Place::new();
    let code = format!(
        "{}\n[turn_credentials(ENV[\"SECRET\"], \"alice\"), ask_for_credentials(ENV[\"API\"], ENV[\"KEY\"], \"alice\")].each do |made|\n\
         puts \"#{{made[:username]}} #{{made[:credential]}}\"\nend\n",
        recipe("ruby")
    );
    let file = place.write("recipe.rb", &code);
    place.must_print_two_credentials(Command::new(require_tool("ruby", "ruby")).arg(file));
}

#[test]
fn the_recipe_in_java_works() {
    if Command::new("javac").arg("-version").output().is_err() {
        return skipped("javac (default-jdk-headless) is not installed");
    }
    let place = Place::new();
    let files = [
        place.write("TurnCredentials.java", recipe("java")),
        place.write(
            "Recipe.java",
            r#"class Recipe {
                public static void main(String[] arguments) throws Exception {
                    String[] made = TurnCredentials.make(System.getenv("SECRET"), "alice", 3600);
                    System.out.println(made[0] + " " + made[1]);
                    String answer = TurnCredentials.ask(System.getenv("API"), System.getenv("KEY"), "alice");
                    String username = answer.replaceAll("(?s).*\"username\":\"([^\"]*)\".*", "$1");
                    System.out.println(username + " " + answer.replaceAll("(?s)^.\"credential\":\"([^\"]*)\".*", "$1"));
                }
            }"#,
        ),
    ];
    let compiled = run(Command::new("javac").args(&files).current_dir(place.folder.path()), RUN_LIMIT);
    assert_eq!(compiled.code, Some(0), "{}", compiled.all_output());
    place.must_print_two_credentials(Command::new("java").arg("-cp").arg(place.folder.path()).arg("Recipe"));
}

#[test]
fn the_recipe_in_kotlin_works() {
    if Command::new("kotlinc").arg("-version").output().is_err() {
        return skipped("kotlinc (kotlin, 350 MB) is not installed");
    }
    let place = Place::new();
    let main = r#"
fun main() {
    val (username, credential) = turnCredentials(System.getenv("SECRET"), "alice")
    println("$username $credential")
    val answer = askForCredentials(System.getenv("API"), System.getenv("KEY"), "alice")
    val field = { name: String -> Regex("^.*?\"$name\":\"([^\"]*)\"").find(answer)!!.groupValues[1] }
    println("${field("username")} ${field("credential")}")
}
"#;
    let file = place.write("Recipe.kt", &format!("{}\n{main}", recipe("kotlin")));
    let program = place.folder.path().join("recipe.jar");
    let mut compiler = Command::new("kotlinc");
    let compiled = run(compiler.arg(file).arg("-include-runtime").arg("-d").arg(&program), RUN_LIMIT);
    assert_eq!(compiled.code, Some(0), "{}", compiled.all_output());
    place.must_print_two_credentials(Command::new("java").arg("-jar").arg(program));
}

#[test]
fn the_recipe_in_c_sharp_works() {
    let compiler = require_tool("mcs", "mono-mcs");
    let place = Place::new();
    let main = r#"
        using System;
        using System.Net.Http;
        using System.Text.RegularExpressions;

        class Recipe
        {
            static string Field(string answer, string name)
            {
                return Regex.Match(answer, "^.*?\"" + name + "\":\"([^\"]*)\"").Groups[1].Value;
            }

            static void Main()
            {
                var of = new Func<string, string>(Environment.GetEnvironmentVariable);
                var made = TurnCredentials.Make(of("SECRET"), "alice");
                Console.WriteLine(made.Username + " " + made.Credential);
                var answer = TurnCredentials.Ask(new HttpClient(), of("API"), of("KEY"), "alice").Result;
                Console.WriteLine(Field(answer, "username") + " " + Field(answer, "credential"));
            }
        }
    "#;
    let files = [place.write("TurnCredentials.cs", recipe("csharp")), place.write("Recipe.cs", main)];
    let program = place.folder.path().join("recipe.exe");
    let mut command = Command::new(compiler);
    let compiled =
        run(command.arg("-r:System.Net.Http").arg(format!("-out:{}", program.display())).args(&files), RUN_LIMIT);
    assert_eq!(compiled.code, Some(0), "{}", compiled.all_output());
    place.must_print_two_credentials(Command::new(require_tool("mono", "mono-runtime")).arg(program));
}
