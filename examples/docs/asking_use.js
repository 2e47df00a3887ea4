const files = new Calls("ws://127.0.0.1:8000/files");
files.onquestion = async (question) => {
  if (question.type !== "confirm") throw new Error(`cannot answer ${question.type}`);
  return { choice: confirm(question.question) ? "yes" : "no" };
};
