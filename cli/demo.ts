import { Command } from "@cliffy/command";
export function demoCommand(): Command { return new Command().description("demo"); }
